"""Names of everything that is recorded, and the shape of a line in ``metrics.jsonl``.

A line is one JSON object: ``step`` (optimiser steps finished), ``time`` (Unix seconds), ``tokens`` (tokens
trained on so far) and any number of metrics, name to number. The first line is ``{"schema": SCHEMA}``.
Names are ``<family>/<quantity>``; a quantity that has one value per loop ends in ``/t<loop>``, two digits,
0-based; a loss read at a depth ends in ``/T<loops>``.
"""

import re
from typing import Final

SCHEMA: Final = 1
FILE_NAME: Final = "metrics.jsonl"

TRAIN_LOSS: Final = "train/loss"
"""Mean negative log-likelihood per target token, in nats, at the depth drawn for the step."""
GRAD_NORM: Final = "train/grad_norm"
"""Global gradient norm before clipping."""
NUM_LOOPS: Final = "depth/num_loops"
NUM_GRAD_LOOPS: Final = "depth/num_grad_loops"
MEAN_LOOPS: Final = "depth/mean"
"""Mean of the loops run since the run began."""
EXPECTED_PASSES: Final = "halting/expected_passes"
"""Mean over tokens of the expected pass after which they leave; absent when halting is fixed."""
LOAD_VIOLATION: Final = "experts/load_violation"
"""Largest expert load over the mean load, minus one, averaged over loops and layers."""
ROUTER_ENTROPY: Final = "experts/router_entropy"
"""Mean entropy of the router's normalised scores, in nats."""

# Speed and memory: of all ranks together, over the timed steps since the last record or ("mean") since the start.
TOKENS_PER_SECOND: Final = "speed/tokens_per_second"
MEAN_TOKENS_PER_SECOND: Final = "speed/mean_tokens_per_second"
PASSES_PER_SECOND: Final = "speed/passes_per_second"
"""Tokens times the passes that each ran, per second."""
MEAN_PASSES_PER_SECOND: Final = "speed/mean_passes_per_second"
MFU: Final = "speed/mfu"
"""Useful FLOP/s over the devices' peak, at the depth that was run; absent where the peak is unknown."""
MEAN_MFU: Final = "speed/mean_mfu"
DATA_WAIT_SECONDS: Final = "speed/data_wait_seconds"
"""Seconds that the slowest rank waited for its loader."""
DATA_WAIT_SHARE: Final = "speed/data_wait_share"
PEAK_ALLOCATED: Final = "memory/peak_allocated_gib"
"""Most memory in tensors since the last record, in GiB of the fullest rank; absent without CUDA."""
PEAK_RESERVED: Final = "memory/peak_reserved_gib"
"""Most memory that the allocator held, likewise."""


def penalty(term: str) -> str:
    """Name of a weighted penalty's share of the loss, in nats per target token."""
    return f"train/penalty/{term}"


def learning_rate(group: str) -> str:
    """Name of the learning rate of a parameter group (hidden, experts, other)."""
    return f"train/lr/{group}"


def validation_loss(num_loops: int) -> str:
    """Name of the held-out loss, in nats per token, at a depth."""
    return f"val/loss/T{num_loops:02d}"


def state_norm(loop: int) -> str:
    """Name of the mean root-mean-square of the state after a loop."""
    return f"loop/state_norm/t{loop:02d}"


def relative_change(loop: int) -> str:
    """Name of the mean of |h' - h| / |h'| over a loop."""
    return f"loop/relative_change/t{loop:02d}"


def index_of(name: str) -> int | None:
    """The loop or depth at the end of a metric's name, if it has one."""
    found = re.search(r"/[tT](\d+)$", name)
    return int(found.group(1)) if found else None
