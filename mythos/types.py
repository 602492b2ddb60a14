"""Values that packages exchange: NamedTuples of tensors, whose tensors ZeRO-3's hooks can find.

Shape suffixes, used everywhere:
  B batch (sequences)   S sequence (tokens)   N tokens, flattened (B * S)   D model width   V vocabulary
  H heads   G key-value heads   P head width   F feed-forward width
  E experts   K experts per token   M rows of tokens sorted by expert (N * K)
  T loops   L core layers   X exits evaluated
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -1
"""Target of a position that is not predicted."""


class Batch(NamedTuple):
    """One micro-batch of fixed windows."""

    tokens_BS: Tensor
    targets_BS: Tensor
    """The next token, or ``IGNORED``."""
    positions_BS: Tensor
    """Position in the document; restarts at each document."""
    document_ids_BS: Tensor | None
    """Document of the window that a token belongs to; None lets every token attend to all earlier ones."""
    sample_ids_B: Tensor
    """Global index of the window in the stream."""
    num_targets: Tensor
    """Scalar: number of target tokens in the whole optimiser step, over all ranks and micro-batches."""
    num_sequences: Tensor
    """Scalar: number of windows in the whole optimiser step."""
    num_documents: int | None = None
    """Documents in this micro-batch, each counted once in each window; None if the host does not know their number."""


def one_document(tokens_BS: Tensor) -> Batch:
    """Return windows that each contain one document, without padding; their targets are the next tokens."""
    num_rows, length = tokens_BS.shape
    return Batch(
        tokens_BS=tokens_BS,
        targets_BS=torch.cat((tokens_BS[:, 1:], tokens_BS.new_full((num_rows, 1), IGNORED)), dim=1),
        positions_BS=torch.arange(length, device=tokens_BS.device).expand(num_rows, -1),
        document_ids_BS=None,
        sample_ids_B=torch.arange(num_rows, device=tokens_BS.device),
        num_targets=torch.tensor(float(num_rows * (length - 1))),
        num_sequences=torch.tensor(float(num_rows)),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with every tensor on ``device``."""
    moved: dict[str, Any] = {n: part.to(device) for n, part in batch._asdict().items() if isinstance(part, Tensor)}
    return batch._replace(**moved)


def first_rows(batch: Batch, num_rows: int) -> Batch:
    """Return the first sequences of a batch; its figures of the whole step stay."""
    return take_rows(batch, slice(num_rows))


def take_rows(batch: Batch, rows: slice | Tensor) -> Batch:
    """Return these sequences of a batch, in this order; its figures of the whole step stay."""
    parts: dict[str, Any] = {
        name: part[rows] for name, part in batch._asdict().items() if isinstance(part, Tensor) and part.dim() > 0
    }
    return batch._replace(**parts | {"num_documents": None})


class RouterStats(NamedTuple):
    """Statistics of a mixture of experts, as sums, so that those of micro-batches and ranks can be added.

    ``...`` is [] or [T, L]. Where the rows of a batch differ in num_loops, T is that of the longest: all rows end in
    the last loop.
    """

    counts_E: Tensor
    """[..., E] int64: tokens routed to each expert; T is always the loop index of a token's own row."""
    z_loss: Tensor
    """[...]: sum over tokens of the squared log-partition of the router logits."""
    balance_loss: Tensor
    """[...]: sum over sequences of E * sum_e f_e p_e (load times mean score); 1 per sequence when balanced."""
    entropy: Tensor
    """[...]: sum over tokens of the entropy of the normalised scores, in nats; carries no gradient."""
    margins_EQ: Tensor
    """[..., E, Q] int32: counts of the margins of selection (``moe.margins``); Q is 0 unless balancing reads them."""


class ExpertTrace(NamedTuple):
    """Differences of a token's routing between loops, as means over tokens. ``loop.trace`` has the formulas."""

    identical_TL: Tensor
    """Share of tokens routed to the same set of experts as in the previous loop; 0 at loop 0."""
    disjoint_TL: Tensor
    """Share of tokens routed to none of the experts of the previous loop; 0 at loop 0."""
    path_diversity_TL: Tensor
    """Distinct experts in loops 0 .. t, over the number of experts in one loop."""
    overlap_TT: Tensor
    """Jaccard overlap of the sets of experts of two loops, also averaged over layers."""


class LoopTrace(NamedTuple):
    """Statistics of the state in each loop, without gradient. T is the loop index of a token's own row.

    Means over a sample of at most ``loop.recorder.MAX_TOKENS`` tokens of the rows that ran the loop. The figures of the
    gradient are sums over rows; they are zero until the backward has filled them.
    """

    num_rows_T: Tensor
    """Rows that ran each loop: the weights of the average over batches."""
    state_norm_T: Tensor
    """Root mean square of the state after each loop."""
    relative_change_T: Tensor
    """|h' - h| / |h'|."""
    cosine_T: Tensor
    """Cosine of h' and h."""
    curvature_ratio_T: Tensor
    """|h'' - 2 h' + h| / |h'' - h'|; 0 at loop 0, which has no previous change."""
    token_correlation_T: Tensor
    """Mean cosine between the states of two tokens of a row."""
    update_norm_TL: Tensor
    """|x' - x| / |x| over each block of the core."""
    experts: ExpertTrace | None
    """None when the core is dense."""
    gates: tuple[dict[str, Tensor], ...]
    """Of each loop part: mean, share near 0 and share near 1 of each of its gates, ``[T, 3]`` by name."""
    gradient_square_T: Tensor
    """Squared norm of the gradient of the loss with respect to the state after each loop."""
    num_grad_rows_T: Tensor
    """Rows whose state received that gradient."""


class ModelOutput(NamedTuple):
    """Result of a forward."""

    nll_XBS: Tensor
    """Negative log-likelihood of the target at each exit, in nats; 0 where the target is ignored."""
    lse_XBS: Tensor
    """Log-partition of the output logits."""
    exit_prob_XBS: Tensor
    """Probability of each exit; with ``halting_TBS``, of every loop, with a sum of one over loops."""
    router_stats: RouterStats | None
    """Stacked [T, L, ...]; None when the core is dense."""
    state_BSD: Tensor
    """The state after the last loop."""
    trace: LoopTrace | None
    halting_TBS: Tensor | None
    """Probability of exiting after each loop; None when halting is fixed."""
    ponder_BS: Tensor | None
    """ACT's ponder cost; None for other kinds of halting."""
    stop_logit_TBS: Tensor | None
    """The halting gate's logits; None when halting is fixed."""
    change_T: Tensor | None
    """Sum over tokens of |h' - h|^2 / |h'|^2, for each loop; None unless requested."""
    jacobian_growth_B: Tensor | None
    """Squared growth of a small change of the last state over one more loop; None unless requested."""


class Regularizers(NamedTuple):
    """Differentiable figures of the loop that penalties request; each has a cost."""

    consistency: bool = False
    """Return ``change_T``."""
    num_power_iterations: int = 0
    """Return ``jacobian_growth_B`` along a direction found in this many extra loops; 0 returns none."""


class Observation(NamedTuple):
    """Figures of one training micro-batch for the callbacks, without gradient."""

    num_loops: float
    """Number of loops, averaged over the rows of the micro-batch."""
    num_grad_loops: float
    """Number of loops with gradients, averaged over the rows."""
    nll: Tensor
    """This micro-batch's share of the step's mean negative log-likelihood; the sum over the step is that mean."""
    penalties: dict[str, Tensor]
    """Shares of the weighted penalties, by name."""
    num_tokens: int
    exit_prob_T: Tensor | None
    """Mean probability of exiting after each loop; None when halting is fixed."""
    router_stats: RouterStats | None
    trace: LoopTrace | None
    """Present only in the last micro-batch of a step that records it, as is the next."""
    log_partition: Tensor | None = None
    """Mean over tokens of the log-partition of the output logits at the last exit."""
