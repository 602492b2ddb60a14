"""Names of all metrics, and the format of a line in ``metrics.jsonl`` and ``trace.jsonl``.

A line of ``metrics.jsonl`` is one JSON object: ``step`` (optimiser steps finished), ``time`` (Unix seconds),
``tokens`` (tokens trained on so far) and any number of metrics, name to number. The first line is
``{"schema": SCHEMA}``. Names are ``<family>/<quantity>``; a quantity that has one value per loop ends in
``/t<loop>``, two digits, 0-based; one per layer of the core in ``/l<layer>``, one per both in ``/l<layer>/t<loop>``;
a loss at a loop count ends in ``/T<loops>``. No name begins with another one and a slash: trackers use them as paths.

``trace.jsonl`` has the same first line; its other lines are ``step``, ``time`` and any number of arrays, name to
nested lists.
"""

import re
from typing import Final

SCHEMA: Final = 3
"""Version of the names and meanings in all files of a run: configuration, metrics, checkpoints, evaluations, sweeps.

A new name, or a new field whose default keeps the behaviour of before, does not change it.
"""
FILE_NAME: Final = "metrics.jsonl"
TRACE_FILE_NAME: Final = "trace.jsonl"

TRAIN_LOSS: Final = "train/loss"
"""Mean negative log-likelihood per target token, in nats, at the number of loops drawn for the step."""
GRAD_NORM: Final = "train/grad_norm"
"""Global gradient norm before clipping."""
NUM_LOOPS: Final = "depth/num_loops"
NUM_GRAD_LOOPS: Final = "depth/num_grad_loops"
MEAN_LOOPS: Final = "depth/mean"
"""Mean number of loops since the run began."""
EXPECTED_LOOPS: Final = "halting/expected_loops"
"""Mean over tokens of the expected number of loops before they exit; absent when halting is fixed."""
LOAD_VIOLATION: Final = "experts/load_violation"
"""Largest expert load over the mean load, minus one, averaged over loops and layers."""
ROUTER_ENTROPY: Final = "experts/router_entropy"
"""Mean entropy of the router's normalised scores, in nats."""
LOSS_GAIN: Final = "loop/loss_gain"
"""``loss_at`` one loop minus that at the largest measured number of loops; absent unless both are measured."""
JACOBIAN_RADIUS: Final = "loop/jacobian_radius"
"""Jacobian growth of a small change of the state over one loop, by power iteration."""
DECAY_MAX: Final = "injection/decay_max"
"""Largest entry of A; absent unless the injection is diagonal, as is the next."""
DECAY_MEAN: Final = "injection/decay_mean"
INPUT_GAIN: Final = "injection/input_gain"
"""Root mean square of the injected input, for a random e of unit root mean square."""
LOG_PARTITION: Final = "head/log_partition"
"""Mean over tokens of the log-partition of the output logits, in nats."""

EXPERT_LOAD: Final = "experts/load"
"""Array [layer][loop][expert]: routed tokens since the last telemetry, in percent of the mean over experts."""
EXPERT_LOAD_LAYERS: Final = "experts/load_layers"
"""List: the layers of ``EXPERT_LOAD``; all of them unless the array would be large, then evenly spaced ones."""
EXPERT_OVERLAP: Final = "experts/overlap"
"""Array [loop][loop]: Jaccard overlap of a token's experts in two loops, mean over tokens and layers."""

# Speed and memory of all ranks together, over the timed steps since the last record or, for means, since the start.
TOKENS_PER_SECOND: Final = "speed/tokens_per_second"
MEAN_TOKENS_PER_SECOND: Final = "speed/mean_tokens_per_second"
LOOPS_PER_SECOND: Final = "speed/loops_per_second"
"""Tokens times the loops that each ran, per second."""
MEAN_LOOPS_PER_SECOND: Final = "speed/mean_loops_per_second"
MFU: Final = "speed/mfu"
"""Useful FLOP/s over the devices' peak, at the number of loops that was run; absent where the peak is unknown."""
MEAN_MFU: Final = "speed/mean_mfu"
DATA_WAIT_SECONDS: Final = "speed/data_wait_seconds"
"""Seconds that the slowest rank waited for its loader."""
DATA_WAIT_SHARE: Final = "speed/data_wait_share"
SLOWEST_RANK: Final = "speed/slowest_rank"
"""Longest time of a rank from the start of a step to its first wait for others, over the ranks' lower median."""
PEAK_ALLOCATED: Final = "memory/peak_allocated_gib"
"""Peak memory of tensors since the last record, in GiB, on the rank with most; absent without CUDA."""
PEAK_RESERVED: Final = "memory/peak_reserved_gib"
"""Peak memory of the allocator, likewise."""


def penalty(term: str) -> str:
    """Name of a weighted penalty's share of the loss, in nats per target token."""
    return f"train/penalty/{term}"


def learning_rate(group: str) -> str:
    """Name of the learning rate of a parameter group (hidden, experts, other)."""
    return f"train/lr/{group}"


def group_grad_norm(group: str) -> str:
    """Name of the gradient norm of a parameter group, before clipping."""
    return f"train/group_grad_norm/{group}"


def group_update_norm(group: str) -> str:
    """Name of |w' - w| / |w| over one optimiser step, for the weights of a parameter group."""
    return f"train/update_norm/{group}"


def validation_loss(num_loops: int) -> str:
    """Name of the held-out loss, in nats per token, at a number of loops."""
    return f"val/loss/T{num_loops:02d}"


def loss_at(num_loops: int) -> str:
    """Name of the loss on a few training sequences at a number of loops, in nats per token, before the step."""
    return f"loop/loss/T{num_loops:02d}"


def state_norm(loop: int) -> str:
    """Name of the mean root-mean-square of the state after a loop."""
    return f"loop/state_norm/t{loop:02d}"


def relative_change(loop: int) -> str:
    """Name of the mean of |h' - h| / |h'| over a loop."""
    return f"loop/relative_change/t{loop:02d}"


def cosine(loop: int) -> str:
    """Name of the mean cosine of the states before and after a loop."""
    return f"loop/cosine/t{loop:02d}"


def curvature_ratio(loop: int) -> str:
    """Name of the mean of |h'' - 2 h' + h| / |h'' - h'|, h'' the state after the loop; from loop 1 on."""
    return f"loop/curvature_ratio/t{loop:02d}"


def token_correlation(loop: int) -> str:
    """Name of the mean cosine between the states of two tokens of a sequence, after a loop; 1 is collapse."""
    return f"loop/token_correlation/t{loop:02d}"


def gradient_norm(loop: int) -> str:
    """Name of the norm of the loss's gradient with respect to the state after a loop; loops with gradients only."""
    return f"loop/gradient_norm/t{loop:02d}"


def update_norm(layer: int, loop: int) -> str:
    """Name of the mean of |x' - x| / |x| over a block of the core, in a loop."""
    return f"loop/update_norm/l{layer:02d}/t{loop:02d}"


def gate_mean(gate: str, loop: int) -> str:
    """Name of the mean of a loop part's gate, ``<family>/<name>``, in a loop."""
    return f"{gate}_mean/t{loop:02d}"


def gate_near_0(gate: str, loop: int) -> str:
    """Name of the share of a gate's values that are below 0.02 in absolute value, in a loop."""
    return f"{gate}_near_0/t{loop:02d}"


def gate_near_1(gate: str, loop: int) -> str:
    """Name of the share of a gate's values that are above 0.98 in absolute value, in a loop."""
    return f"{gate}_near_1/t{loop:02d}"


def gate_of(name: str) -> str | None:
    """Return the gate, ``<family>/<name>``, whose mean a metric is, if it is one."""
    match = re.fullmatch(r"(.+)_mean/t\d+", name)
    return match.group(1) if match else None


def halting_mass(loop: int) -> str:
    """Name of the mean probability of exiting after a loop; absent when halting is fixed."""
    return f"halting/mass/t{loop:02d}"


def load_violation(layer: int, loop: int) -> str:
    """Name of the largest expert load over the mean load, minus one, since the last telemetry."""
    return f"experts/loop_load_violation/l{layer:02d}/t{loop:02d}"


def router_entropy(layer: int, loop: int) -> str:
    """Name of the mean entropy of the router's normalised scores in a loop, in nats; absent with ``per_sequence``."""
    return f"experts/loop_router_entropy/l{layer:02d}/t{loop:02d}"


def identical_experts(layer: int, loop: int) -> str:
    """Name of the share of tokens that are routed to the same experts as in the loop before; from loop 1 on."""
    return f"experts/identical/l{layer:02d}/t{loop:02d}"


def disjoint_experts(layer: int, loop: int) -> str:
    """Name of the share of tokens that are routed to none of the experts of the loop before; from loop 1 on."""
    return f"experts/disjoint/l{layer:02d}/t{loop:02d}"


def path_diversity(layer: int, loop: int) -> str:
    """Name of the mean number of distinct experts of a token up to a loop, over the number of experts in one loop."""
    return f"experts/path_diversity/l{layer:02d}/t{loop:02d}"


def idle_steps(layer: int) -> str:
    """Name of the largest number of steps for which an expert of a layer has had no token in any loop."""
    return f"experts/idle_steps/l{layer:02d}"


def alarm(name: str) -> str:
    """Name of an alarm: 1 in a record that raised it, absent otherwise."""
    return f"alarm/{name}"


def alarm_figure(name: str) -> str:
    """Name of the figure that raised an alarm, in the same record."""
    return f"alarm_figure/{name}"


def alarm_limit(name: str) -> str:
    """Name of the limit that the figure crossed, in the same record."""
    return f"alarm_limit/{name}"


def index_of(name: str) -> int | None:
    """Return the loop or number of loops at the end of a metric's name, if it has one."""
    end = re.search(r"/[tT](\d+)$", name)
    return int(end.group(1)) if end else None


def layer_of(name: str) -> int | None:
    """Return the layer at the end of a metric's name, or before its loop, if it has one."""
    end = re.search(r"/l(\d+)(/t\d+)?$", name)
    return int(end.group(1)) if end else None


GUARD_FIGURE: Final = "guard_figure"
"""In a record of the guard: the loss or norm that was skipped, the step returned to, or the first sample left out."""


def guard(name: str) -> str:
    """Name of an action, 1 in its record: not_finite, loss_spike or gradient_spike (skipped), rollback, poison."""
    return f"guard/{name}"
