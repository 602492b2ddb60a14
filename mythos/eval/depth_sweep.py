"""How a model uses its depth: loss after every pass, convergence, exit rules, and what routing anew is worth."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.eval.exit_rule import leave, rules_for
from mythos.eval.read_out import ReadOut, read_out, read_unrolled
from mythos.loop.change import curvature_ratio, relative_change
from mythos.model.core import ExpertIndices
from mythos.model.mythos import Mythos, Unrolled
from mythos.report.saturation import Saturation, fit
from mythos.types import IGNORED, Batch, to_device

DEPTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32)
_STREAM = 0x5E45  # keeps the input noise apart from every other use of a seed
_TINY = 1e-12


class RulePoint(NamedTuple):
    """An exit rule at one threshold, over all tokens."""

    rule: str
    threshold: float
    mean_loops: float
    loss: float
    """Nats per token, each token read where it leaves."""
    accuracy: float
    loops_share: list[float]
    """Share of tokens that leave after 1, 2, ... passes."""
    changed_share: float
    """Share of tokens that leave after another pass when the input is disturbed."""
    mean_shift: float
    """Mean of the difference in passes, without sign, under that disturbance."""


class Sweep(NamedTuple):
    """Means over the held-out tokens; lists begin with the first pass."""

    num_tokens: int
    noise: float
    """Size of the disturbance of the input, relative to the root mean square of the embeddings."""
    loss: list[float]
    """Nats per token when all tokens leave after 1, 2, ... passes."""
    accuracy: list[float]
    """Share of tokens that are predicted as the likeliest one."""
    relative_change: list[float]
    """|h' - h| / |h'|."""
    angle_degrees: list[float]
    """Between the states before and after a pass; 90 where the first state is zero."""
    curvature_ratio: list[float]
    """|h'' - 2 h' + h| / |h'' - h'|; 0 for the first pass, which has no change before it."""
    distance_to_last: list[float]
    """|h - h_T| / |h_T|, h_T the state after the last pass of all."""
    rules: list[RulePoint]
    shared_expert_share: list[float] | None = None
    """Share of the experts that a pass chooses and the first pass chose too; None for a dense core, as the next two."""
    frozen_loss: list[float] | None = None
    """As ``loss`` where every later pass takes the experts that the first one chose."""
    frozen_accuracy: list[float] | None = None
    """As ``accuracy``, likewise."""


class Summary(NamedTuple):
    """A sweep in a few numbers, nats per token."""

    best_depth: int
    """The depth with the lowest loss of those asked for."""
    fitted: Saturation | None
    """L_inf + Z exp(-z T / mean) over the depths asked for; None where the loss does not saturate over them."""
    mean_minus_floor: float | None
    """What the mean depth of training leaves to L_inf."""
    twice_minus_mean: float | None
    """What twice the mean depth changes: below zero if it helps; None if the sweep does not go that deep."""


def summarize(found: Sweep, depths: Sequence[int], mean_depth: float) -> Summary:
    """Fit the losses at some of the depths and compare them around the mean depth of training."""
    losses = np.array([found.loss[depth - 1] for depth in depths])
    fitted = fit(np.array(depths, dtype=np.float64), losses, mean_depth)
    mean, twice = max(1, round(mean_depth)), max(1, round(2 * mean_depth))
    at_mean = found.loss[mean - 1] if mean <= len(found.loss) else None
    at_twice = found.loss[twice - 1] if twice <= len(found.loss) else None
    return Summary(
        best_depth=depths[int(losses.argmin())],
        fitted=fitted,
        mean_minus_floor=None if fitted is None or at_mean is None else at_mean - fitted.floor,
        twice_minus_mean=None if at_mean is None or at_twice is None else at_twice - at_mean,
    )


@torch.no_grad()
def sweep(model: Mythos, batches: Iterable[Batch], num_loops: int, noise: float = 0.01, seed: int = 0) -> Sweep:
    """Run held-out batches ``num_loops`` deep and read every pass, then again with noise added to the embeddings.

    A core with experts runs once more with its routing frozen to the first pass. The states of one run are gone before
    the next begins.

    Args:
        noise: standard deviation of what is added, relative to the root mean square of the embeddings read.
    """
    device = model.embedding.weight.device
    has_experts = model.config.is_moe
    sums = _Sums(num_loops, rules_for(model.halting.config.kind), has_experts)
    for index, host_batch in enumerate(batches):
        batch = to_device(host_batch, device)
        read, figures_FT = _read_with_figures(model, batch, num_loops)
        with _Disturbed(model, noise, seed, index):
            disturbed = read_out(model, batch, num_loops)
        frozen = read_out(model, batch, num_loops, freeze_routing=True) if has_experts else None
        sums.add(read, figures_FT, disturbed, frozen)
    return sums.means(noise)


class _Sums:
    """Totals over batches, in double precision."""

    def __init__(self, num_loops: int, rules: Sequence[ExitRule], has_experts: bool) -> None:
        self.rules = rules
        self.num_tokens = 0
        self.by_loop_FT = np.zeros((9 if has_experts else 6, num_loops))
        """Loss, right answers, relative change, angle, second difference, distance to the last state; with experts also
        shared choices, and loss and right answers under frozen routing."""
        self.by_rule_RF = np.zeros((len(rules), 4))
        """Loss, right answers, tokens that leave elsewhere when disturbed, and by how many passes."""
        self.exits_RT = np.zeros((len(rules), num_loops))

    def add(self, read: ReadOut, figures_FT: np.ndarray, disturbed: ReadOut, frozen: ReadOut | None) -> None:
        """Take in one batch."""
        self.num_tokens += len(read.target_N)
        of_frozen = [] if frozen is None else _loss_and_right(frozen)
        self.by_loop_FT += np.stack([*_loss_and_right(read), *figures_FT, *of_frozen])
        for place, rule in enumerate(self.rules):
            exit_loop_N = leave(rule, read)
            left, shift_N = read.at(exit_loop_N), (leave(rule, disturbed) - exit_loop_N).abs()
            parts = (left.nll_N, left.is_right_N, shift_N > 0, shift_N)
            self.by_rule_RF[place] += [float(part.double().sum()) for part in parts]
            self.exits_RT[place] += torch.bincount(exit_loop_N, minlength=read.num_loops).cpu().numpy()

    def means(self, noise: float) -> Sweep:
        """What was added, over the number of tokens."""
        loss, accuracy, change, angle, bend, distance, *of_experts = (self.by_loop_FT / self.num_tokens).tolist()
        loops_T = np.arange(1, self.exits_RT.shape[1] + 1)
        points = []
        for rule, sums_F, exits_T in zip(self.rules, self.by_rule_RF, self.exits_RT, strict=True):
            rule_loss, right_share, changed, shift = (sums_F / self.num_tokens).tolist()
            share_T = exits_T / self.num_tokens
            mean_loops = float(share_T @ loops_T)
            points.append(
                RulePoint(
                    rule.kind, rule.threshold, mean_loops, rule_loss, right_share, share_T.tolist(), changed, shift
                )
            )
        return Sweep(self.num_tokens, noise, loss, accuracy, change, angle, bend, distance, points, *of_experts)


class _Disturbed:
    """Adds noise to what the embedding gives while the block of the ``with`` runs."""

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


def _read_with_figures(model: Mythos, batch: Batch, num_loops: int) -> tuple[ReadOut, np.ndarray]:
    """Every loop of free routing, and the sums ``[F, T]`` of ``_figures`` and ``_shared_expert_share``."""
    unrolled = model.unroll(batch, num_loops)
    keep_BS = batch.targets_BS != IGNORED
    figures_FT = _figures(unrolled, keep_BS)
    if model.config.is_moe:
        figures_FT = np.vstack([figures_FT, _shared_expert_share(unrolled.expert_indices, keep_BS)])
    return read_unrolled(model, unrolled, batch.targets_BS), figures_FT


def _loss_and_right(read: ReadOut) -> list[np.ndarray]:
    """Sums over tokens, ``[T]`` each."""
    return [part.double().sum(1).cpu().numpy() for part in (read.nll_TN, read.prediction_TN == read.target_N)]


def _shared_expert_share(expert_indices: list[ExpertIndices], keep_BS: Tensor) -> list[float]:
    """Sums over tokens, by pass: |E_t and E_1| / K of the sets of experts, a mean over blocks."""
    loops = [torch.stack([c for c in chosen if c is not None])[:, keep_BS.flatten()] for chosen in expert_indices]
    is_shared = [(chosen_LNK[..., None] == loops[0][:, :, None]).any(-1) for chosen_LNK in loops]
    return [float(shared_LNK.double().mean((0, 2)).sum()) for shared_LNK in is_shared]


def _figures(unrolled: Unrolled, keep_BS: Tensor) -> np.ndarray:
    """Sums over tokens, ``[4, T]``: relative change, angle, second difference, distance to the last state."""
    states = [h_BSD[keep_BS].float() for h_BSD in unrolled.states]
    last_N = states[-1].norm(dim=-1).clamp(min=_TINY)
    rows, change_before_ND = [], None
    for old_ND, new_ND in pairwise(states):
        change_ND = new_ND - old_ND
        bend_N = torch.zeros_like(last_N) if change_before_ND is None else curvature_ratio(change_ND, change_before_ND)
        distance_N = (new_ND - states[-1]).norm(dim=-1) / last_N
        figures = (relative_change(new_ND, old_ND), _angle(new_ND, old_ND), bend_N, distance_N)
        rows.append([float(figure_N.double().sum()) for figure_N in figures])
        change_before_ND = change_ND
    return np.array(rows).T


def _angle(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """Degrees between two vectors by Kahan's formula, which is exact for small angles where the arccosine is not."""
    one_ND, other_ND = (torch.nn.functional.normalize(x_ND, dim=-1, eps=_TINY) for x_ND in (one_ND, other_ND))
    return 2 * torch.atan2((one_ND - other_ND).norm(dim=-1), (one_ND + other_ND).norm(dim=-1)).rad2deg()
