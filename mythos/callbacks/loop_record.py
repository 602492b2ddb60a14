"""From the loop statistics of one rank to metrics: sums that add up over ranks, then means."""

from typing import Any

import torch
from torch import Tensor

from mythos.callbacks.ranks import padded
from mythos.config import records
from mythos.moe.balance import load_violations
from mythos.types import LoopTrace, Observation

MAX_LOADS = 2**16
"""Most elements of one array of expert loads, some 250 kB of text; larger ones omit some layers."""
_OF_LOOP = {
    "state_norm_T": records.state_norm,
    "relative_change_T": records.relative_change,
    "cosine_T": records.cosine,
    "curvature_ratio_T": records.curvature_ratio,
    "token_correlation_T": records.token_correlation,
}
_OF_LAYER = {
    "update_norm_TL": records.update_norm,
    "identical_TL": records.identical_experts,
    "disjoint_TL": records.disjoint_experts,
    "path_diversity_TL": records.path_diversity,
}
_OF_GATE = (records.gate_mean, records.gate_near_0, records.gate_near_1)
_FROM_SECOND_LOOP = {"curvature_ratio_T", "identical_TL", "disjoint_TL"}


def trace_parts(trace: LoopTrace, num_loops: int) -> dict[str, Tensor]:
    """Convert the means of a loop trace to sums over rows, ``[num_loops, ...]``, which add up over ranks."""
    num_rows_T = trace.num_rows_T
    means = {name: getattr(trace, name) for name in (*_OF_LOOP, "update_norm_TL")}
    parts = {name: getattr(trace, name) for name in ("num_rows_T", "gradient_square_T", "num_grad_rows_T")}
    if trace.experts is not None:
        means |= {name: mean for name, mean in trace.experts._asdict().items() if name != "overlap_TT"}
        num_pairs_TT = torch.minimum(num_rows_T[:, None], num_rows_T)
        parts["overlap_TT"] = padded(trace.experts.overlap_TT * num_pairs_TT, num_loops).T  # padded again below
    means |= {
        gate_key(index, name): mean for index, of_part in enumerate(trace.gates) for name, mean in of_part.items()
    }
    parts |= {name: mean * num_rows_T.view(-1, *[1] * (mean.dim() - 1)) for name, mean in means.items()}
    return {name: padded(part, num_loops) for name, part in parts.items()}


def gate_key(index: int, name: str) -> str:
    """Name, among the parts of a record, of a gate of the loop part of this index."""
    return f"gate/{index}/{name}"


def gate_record(sums: dict[str, Tensor], families: list[str]) -> dict[str, float]:
    """Compute the metrics of the gates of loop parts from ``trace_parts``, summed over ranks.

    Args:
        families: metric family of each loop part.
    """
    num_rows_T = sums["num_rows_T"]
    num_loops = int((num_rows_T > 0).sum())
    record: dict[str, float] = {}
    for key in sums:
        if key.startswith("gate/"):
            _, index, name = key.split("/")
            gate = f"{families[int(index)]}/{name}"
            mean_TF = (sums[key] / num_rows_T[:, None])[:num_loops]
            for name_of, mean_T in zip(_OF_GATE, mean_TF.T.tolist(), strict=True):
                record |= {name_of(gate, loop): mean for loop, mean in enumerate(mean_T)}
    return record


def observation_parts(last: Observation, num_loops: int, rows_differ: bool) -> dict[str, Tensor]:
    """Further values of the last micro-batch; each rank counts once."""
    parts = {"num_ranks": torch.ones((), device=last.nll.device)}
    if last.log_partition is not None:
        parts["log_partition"] = last.log_partition
    if last.exit_prob_T is not None:
        parts["exit_prob_T"] = padded(last.exit_prob_T, num_loops)
    if last.router_stats is not None and not rows_differ:  # else the loop index differs between rows
        parts["entropy_TL"] = padded(last.router_stats.entropy / last.num_tokens, num_loops)
    return parts


def loop_record(sums: dict[str, Tensor]) -> dict[str, float]:
    """Compute metrics from ``trace_parts`` and ``observation_parts``, summed over ranks."""
    num_rows_T = sums["num_rows_T"]
    num_loops = int((num_rows_T > 0).sum())
    record: dict[str, float] = {}
    for name, of_loop in _OF_LOOP.items():
        mean_T = (sums[name] / num_rows_T)[:num_loops].tolist()
        record |= {of_loop(loop): mean_T[loop] for loop in _loops(name, num_loops)}
    for name, of_layer in _OF_LAYER.items():
        if name in sums:
            mean_TL = (sums[name] / num_rows_T[:, None])[:num_loops]
            record |= _by_layer(of_layer, mean_TL, _loops(name, num_loops))
    square_T = sums["gradient_square_T"] / sums["num_grad_rows_T"]
    graded = sums["num_grad_rows_T"].nonzero().flatten().tolist()
    record |= {records.gradient_norm(loop): square_T[loop].sqrt().item() for loop in graded}
    num_ranks = sums["num_ranks"]
    if "log_partition" in sums:
        record[records.LOG_PARTITION] = (sums["log_partition"] / num_ranks).item()
    if "exit_prob_T" in sums:
        mass_T = (sums["exit_prob_T"] / num_ranks).tolist()
        record |= {records.halting_mass(loop): mass_T[loop] for loop in range(num_loops)}
    if "entropy_TL" in sums:
        record |= _by_layer(records.router_entropy, sums["entropy_TL"] / num_ranks, range(num_loops))
    return record


def load_record(counts_TLE: Tensor) -> dict[str, float]:
    """Load violation of each layer and loop, for the loops in which tokens were routed."""
    return _by_layer(records.load_violation, load_violations(counts_TLE), range(_loops_of(counts_TLE)))


def load_arrays(counts_TLE: Tensor) -> dict[str, Any]:
    """Loads in percent of the mean over experts, ``[L][T][E]`` for the loops that routed tokens, and the layers."""
    counts_TLE = counts_TLE[: _loops_of(counts_TLE)]
    layers = list(range(0, counts_TLE.shape[1], -(-counts_TLE.numel() // MAX_LOADS)))
    load_TLE = counts_TLE[:, layers].double()
    percent = 100 * load_TLE / load_TLE.mean(-1, keepdim=True).clamp(min=1e-9)
    return {records.EXPERT_LOAD: percent.round().int().transpose(0, 1).tolist(), records.EXPERT_LOAD_LAYERS: layers}


def overlap_array(sums: dict[str, Tensor]) -> list[list[float]]:
    """Jaccard overlap of the experts of two loops, ``[T][T]``, rounded to three decimals."""
    num_rows_T = sums["num_rows_T"]
    num_loops = int((num_rows_T > 0).sum())
    mean_TT = sums["overlap_TT"] / torch.minimum(num_rows_T[:, None], num_rows_T).clamp(min=1)
    return [[round(value, 3) for value in row] for row in mean_TT[:num_loops, :num_loops].tolist()]


def _loops_of(counts_TLE: Tensor) -> int:
    """Number of loops in which any token was routed."""
    return int((counts_TLE.sum((1, 2)) > 0).sum())


def _loops(name: str, num_loops: int) -> range:
    return range(1 if name in _FROM_SECOND_LOOP else 0, num_loops)


def _by_layer(name_of: Any, value_TL: Tensor, loops: range) -> dict[str, float]:
    rows = value_TL.tolist()
    return {name_of(layer, loop): value for loop in loops for layer, value in enumerate(rows[loop])}
