"""Loss after every loop, convergence of the state, exit rules, and the effect of recomputed routing."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.eval.exit_rule import exit_loops, rules_for
from mythos.eval.token_metrics import TokenMetrics, token_metrics, unrolled_metrics
from mythos.loop.change import curvature_ratio, relative_change
from mythos.loop.run import ExpertIndices
from mythos.model.mythos import Mythos, Unrolled
from mythos.report.saturation import Saturation, fit
from mythos.types import IGNORED, Batch, to_device

LOOP_COUNTS = (1, 2, 4, 6, 8, 12, 16, 24, 32)
"""Loop counts of a sweep unless others are given."""
_STREAM = 0x5E45  # separates the random stream of the input noise from every other use of a seed
_TINY = 1e-12


class RulePoint(NamedTuple):
    """An exit rule at one threshold, over all tokens."""

    rule: str
    threshold: float
    mean_loops: float
    loss: float
    """Nats per token, each token at its own exit."""
    accuracy: float
    loops_share: list[float]
    """Share of tokens that exit after 1, 2, ... loops."""
    changed_share: float
    """Share of tokens that exit after a different loop when the input is perturbed."""
    mean_shift: float
    """Mean absolute difference in loops under that perturbation."""


class Sweep(NamedTuple):
    """Means over the held-out tokens; lists begin with the first loop."""

    num_tokens: int
    noise: float
    """Size of the perturbation of the input, relative to the root mean square of the embeddings."""
    loss: list[float]
    """Nats per token when all tokens exit after 1, 2, ... loops."""
    accuracy: list[float]
    """Share of tokens whose prediction is correct."""
    relative_change: list[float]
    """|h' - h| / |h'|."""
    angle_degrees: list[float]
    """Angle between the states before and after a loop; 90 where the first state is zero."""
    curvature_ratio: list[float]
    """|h'' - 2 h' + h| / |h'' - h'|; 0 for the first loop, which has no change before it."""
    distance_to_last: list[float]
    """|h - h_T| / |h_T|, where h_T is the state after the last loop."""
    rules: list[RulePoint]
    shared_expert_share: list[float] | None = None
    """Share of a loop's expert indices that the first loop has too; None for a dense core, as the next two."""
    frozen_loss: list[float] | None = None
    """``loss`` when every later loop uses the expert indices of the first one."""
    frozen_accuracy: list[float] | None = None
    """``accuracy`` when every later loop uses the expert indices of the first one."""


class Summary(NamedTuple):
    """Summary of a sweep at the requested loop counts; losses in nats per token."""

    best_depth: int
    """The loop count with the lowest loss."""
    fitted: Saturation | None
    """Fit of L_inf + Z exp(-z T / mean) to the losses; None where they do not saturate."""
    mean_minus_floor: float | None
    """Loss at the mean depth of training minus L_inf."""
    twice_minus_mean: float | None
    """Loss at twice the mean depth minus loss at the mean depth; None if the sweep runs fewer loops."""


def summarize(result: Sweep, loop_counts: Sequence[int], mean_depth: float) -> Summary:
    """Fit the losses at some loop counts, and compare the losses at the mean depth of training and at twice it."""
    losses = np.array([result.loss[num_loops - 1] for num_loops in loop_counts])
    fitted = fit(np.array(loop_counts, dtype=np.float64), losses, mean_depth)
    mean, twice = max(1, round(mean_depth)), max(1, round(2 * mean_depth))
    at_mean = result.loss[mean - 1] if mean <= len(result.loss) else None
    at_twice = result.loss[twice - 1] if twice <= len(result.loss) else None
    return Summary(
        best_depth=loop_counts[int(losses.argmin())],
        fitted=fitted,
        mean_minus_floor=None if fitted is None or at_mean is None else at_mean - fitted.floor,
        twice_minus_mean=None if at_mean is None or at_twice is None else at_twice - at_mean,
    )


@torch.no_grad()
def sweep(model: Mythos, batches: Iterable[Batch], num_loops: int, noise: float = 0.01, seed: int = 0) -> Sweep:
    """Evaluate every loop on held-out batches, once as they are and once with noise added to the embeddings.

    A core with experts runs a third time with its routing frozen to the first loop. The states of one run are freed
    before the next begins.

    Args:
        noise: standard deviation of the noise, relative to the root mean square of the embeddings of the batch.
    """
    device = model.embedding.weight.device
    has_experts = model.config.is_moe
    sums = _Sums(num_loops, rules_for(model.halting.config.kind), has_experts)
    for index, host_batch in enumerate(batches):
        batch = to_device(host_batch, device)
        metrics, convergence_FT = _metrics_and_convergence(model, batch, num_loops)
        with _EmbeddingNoise(model, noise, seed, index):
            perturbed = token_metrics(model, batch, num_loops)
        frozen = token_metrics(model, batch, num_loops, freeze_routing=True) if has_experts else None
        sums.add(metrics, convergence_FT, perturbed, frozen)
    return sums.means(noise)


class _Sums:
    """Sums over batches, in double precision."""

    def __init__(self, num_loops: int, rules: Sequence[ExitRule], has_experts: bool) -> None:
        self.rules = rules
        self.num_tokens = 0
        self.by_loop_FT = np.zeros((9 if has_experts else 6, num_loops))
        """Loss, correct predictions, relative change, angle, curvature ratio, distance to the last state; with experts
        also the share of shared experts, and loss and correct predictions under frozen routing."""
        self.by_rule_RF = np.zeros((len(rules), 4))
        """Loss, correct predictions, tokens whose exit differs when perturbed, and the difference in loops."""
        self.exits_RT = np.zeros((len(rules), num_loops))
        """Number of tokens that exit after each loop."""

    def add(
        self,
        metrics: TokenMetrics,
        convergence_FT: np.ndarray,
        perturbed: TokenMetrics,
        frozen: TokenMetrics | None,
    ) -> None:
        """Add one batch."""
        self.num_tokens += len(metrics.target_N)
        of_frozen = [] if frozen is None else _loss_and_correct(frozen)
        self.by_loop_FT += np.stack([*_loss_and_correct(metrics), *convergence_FT, *of_frozen])
        for index, rule in enumerate(self.rules):
            exit_loop_N = exit_loops(rule, metrics)
            scores, shift_N = metrics.at(exit_loop_N), (exit_loops(rule, perturbed) - exit_loop_N).abs()
            parts = (scores.nll_N, scores.is_correct_N, shift_N > 0, shift_N)
            self.by_rule_RF[index] += [float(part.double().sum()) for part in parts]
            self.exits_RT[index] += torch.bincount(exit_loop_N, minlength=metrics.num_loops).cpu().numpy()

    def means(self, noise: float) -> Sweep:
        """The sums divided by the number of tokens."""
        loss, accuracy, change, angle, curvature, distance, *of_experts = (self.by_loop_FT / self.num_tokens).tolist()
        loops_T = np.arange(1, self.exits_RT.shape[1] + 1)
        points = []
        for rule, sums_F, exits_T in zip(self.rules, self.by_rule_RF, self.exits_RT, strict=True):
            rule_loss, rule_accuracy, changed, shift = (sums_F / self.num_tokens).tolist()
            share_T = exits_T / self.num_tokens
            mean_loops = float(share_T @ loops_T)
            points.append(
                RulePoint(
                    rule.kind, rule.threshold, mean_loops, rule_loss, rule_accuracy, share_T.tolist(), changed, shift
                )
            )
        return Sweep(self.num_tokens, noise, loss, accuracy, change, angle, curvature, distance, points, *of_experts)


class _EmbeddingNoise:
    """Context manager that adds noise to the output of the embedding."""

    def __init__(self, model: Mythos, noise: float, seed: int, index: int) -> None:
        self.model, self.noise = model, noise
        self.seed = int(np.random.SeedSequence([seed, _STREAM, index]).generate_state(1)[0])

    def __enter__(self) -> None:
        self.handle = self.model.embedding.register_forward_hook(self._add)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _add(self, _module: object, _inputs: object, x_BSD: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise_BSD = torch.randn(x_BSD.shape, generator=generator).to(x_BSD)
        return x_BSD + self.noise * x_BSD.float().square().mean().sqrt() * noise_BSD


def _metrics_and_convergence(model: Mythos, batch: Batch, num_loops: int) -> tuple[TokenMetrics, np.ndarray]:
    """The metrics of all loops with free routing, and the sums ``[F, T]`` of the convergence figures."""
    unrolled = model.unroll(batch, num_loops)
    keep_BS = batch.targets_BS != IGNORED
    convergence_FT = _convergence(unrolled, keep_BS)
    if model.config.is_moe:
        convergence_FT = np.vstack([convergence_FT, _shared_expert_share(unrolled.expert_indices, keep_BS)])
    return unrolled_metrics(model, unrolled, batch.targets_BS), convergence_FT


def _loss_and_correct(metrics: TokenMetrics) -> list[np.ndarray]:
    """Loss and correct predictions, summed over tokens, ``[T]`` each."""
    is_correct_TN = metrics.prediction_TN == metrics.target_N
    return [part_TN.double().sum(1).cpu().numpy() for part_TN in (metrics.nll_TN, is_correct_TN)]


def _shared_expert_share(expert_indices: list[ExpertIndices], keep_BS: Tensor) -> list[float]:
    """|E_t and E_1| / K of the sets of experts, averaged over blocks and summed over tokens, by loop."""
    loops = [torch.stack([i for i in indices if i is not None])[:, keep_BS.flatten()] for indices in expert_indices]
    is_shared = [(indices_LNK[..., None] == loops[0][:, :, None]).any(-1) for indices_LNK in loops]
    return [float(shared_LNK.double().mean((0, 2)).sum()) for shared_LNK in is_shared]


def _convergence(unrolled: Unrolled, keep_BS: Tensor) -> np.ndarray:
    """Relative change, angle, curvature ratio and distance to the last state, summed over tokens, ``[4, T]``."""
    states = [h_BSD[keep_BS].float() for h_BSD in unrolled.states]
    last_N = states[-1].norm(dim=-1).clamp(min=_TINY)
    rows, change_before_ND = [], None
    for old_ND, new_ND in pairwise(states):
        change_ND = new_ND - old_ND
        if change_before_ND is None:
            curvature_N = torch.zeros_like(last_N)
        else:
            curvature_N = curvature_ratio(change_ND, change_before_ND)
        distance_N = (new_ND - states[-1]).norm(dim=-1) / last_N
        figures = (relative_change(new_ND, old_ND), _angle(new_ND, old_ND), curvature_N, distance_N)
        rows.append([float(figure_N.double().sum()) for figure_N in figures])
        change_before_ND = change_ND
    return np.array(rows).T


def _angle(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """Degrees between two vectors by Kahan's formula, which unlike the arccosine is exact for small angles."""
    one_ND, other_ND = (torch.nn.functional.normalize(x_ND, dim=-1, eps=_TINY) for x_ND in (one_ND, other_ND))
    return 2 * torch.atan2((one_ND - other_ND).norm(dim=-1), (one_ND + other_ND).norm(dim=-1)).rad2deg()
