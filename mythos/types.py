"""The values that pass between rooms: NamedTuples of tensors, so that ZeRO-3's hooks can see into them.

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
    """Place in the document; restarts with each one."""
    document_ids_BS: Tensor | None
    """Which document of the window a token belongs to; None lets every token attend to all before it."""
    sample_ids_B: Tensor
    """Global index of the window in the stream."""
    num_targets: Tensor
    """Scalar: target tokens of the whole optimiser step, over all ranks and micro-batches."""
    num_sequences: Tensor
    """Scalar: windows of the whole optimiser step."""
    num_documents: int | None = None
    """In this micro-batch, a document counted once in each window; None if the host does not know."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on ``device``."""
    moved: dict[str, Any] = {n: part.to(device) for n, part in batch._asdict().items() if isinstance(part, Tensor)}
    return batch._replace(**moved)


def first_rows(batch: Batch, num_rows: int) -> Batch:
    """The first sequences of a batch; what it says of the whole step stays."""
    return take_rows(batch, slice(num_rows))


def take_rows(batch: Batch, rows: slice | Tensor) -> Batch:
    """These sequences of a batch, in this order; what it says of the whole step stays."""
    parts: dict[str, Any] = {
        name: part[rows] for name, part in batch._asdict().items() if isinstance(part, Tensor) and part.dim() > 0
    }
    return batch._replace(**parts | {"num_documents": None})


class RouterStats(NamedTuple):
    """What a mixture of experts saw; sums, so that micro-batches and ranks add up. ``...`` is [] or [T, L].

    Where the rows of a batch differ in depth, T counts the passes of the deepest: all rows end in the last one.
    """

    counts_E: Tensor
    """[..., E] int64: tokens that chose each expert; T is always the loop index of a token's own row."""
    z_loss: Tensor
    """[...]: sum over tokens of the squared log-partition of the router logits."""
    balance_loss: Tensor
    """[...]: sum over sequences of E * sum_e f_e p_e (load times mean score); 1 per sequence when balanced."""
    entropy: Tensor
    """[...]: sum over tokens of the entropy of the normalised scores, in nats; carries no gradient."""


class ExpertTrace(NamedTuple):
    """How a token's choice of experts differs between loops: means over tokens. ``loop.trace`` holds the formulas."""

    identical_TL: Tensor
    """Share of tokens that chose the same set as in the loop before; 0 at loop 0."""
    disjoint_TL: Tensor
    """Share of tokens that chose none of the loop before; 0 at loop 0."""
    path_diversity_TL: Tensor
    """Different experts chosen in loops 0 .. t, over those of one loop."""
    overlap_TT: Tensor
    """Jaccard overlap of the sets of two loops, also a mean over layers."""


class LoopTrace(NamedTuple):
    """What the state did, loop by loop; carries no gradient. T is the loop index of a token's own row.

    Means over a sample of the tokens, ``loop.recorder.MAX_TOKENS`` of them at most, of the rows that ran the loop. The
    gradient's figures are sums over rows; they are zero until the backward has filled them.
    """

    num_rows_T: Tensor
    """Rows that ran each loop: the weights by which traces of several batches are averaged."""
    state_norm_T: Tensor
    """Root mean square of the state after each loop."""
    relative_change_T: Tensor
    """|h' - h| / |h'|."""
    cosine_T: Tensor
    """Of h' and h."""
    curvature_ratio_T: Tensor
    """|h'' - 2 h' + h| / |h'' - h'|; 0 at loop 0, which has no change before it."""
    token_correlation_T: Tensor
    """Mean cosine between the states of two tokens of a row."""
    update_norm_TL: Tensor
    """|x' - x| / |x| over each block of the core."""
    experts: ExpertTrace | None
    """None when the core is dense."""
    gradient_square_T: Tensor
    """Squared norm of the loss's gradient by the state after each loop."""
    num_grad_rows_T: Tensor
    """Rows whose state got that gradient."""


class ModelOutput(NamedTuple):
    """What a forward returns."""

    nll_XBS: Tensor
    """Negative log-likelihood of the target at each exit, in nats; 0 where the target is ignored."""
    lse_XBS: Tensor
    """Log-partition of the output logits."""
    exit_prob_XBS: Tensor
    """Probability of leaving at each exit; with ``halting_TBS`` of every pass, summing to one over passes."""
    router_stats: RouterStats | None
    """Stacked [T, L, ...]; None when the core is dense."""
    state_BSD: Tensor
    """The state after the last loop."""
    trace: LoopTrace | None
    halting_TBS: Tensor | None
    """Probability of leaving after each pass; None when halting is fixed."""
    ponder_BS: Tensor | None
    """ACT's ponder cost; None for other kinds of halting."""
    stop_logit_TBS: Tensor | None
    """The halting gate's logits; None when halting is fixed."""
    change_T: Tensor | None
    """Sum over tokens of |h' - h|^2 / |h'|^2, by pass; None unless asked for."""
    jacobian_growth_B: Tensor | None
    """Squared growth of a small change of the last state over one more pass; None unless asked for."""


class Regularizers(NamedTuple):
    """Figures of the loop that carry gradients and cost something, for penalties that ask for them."""

    consistency: bool = False
    """Return ``change_T``."""
    num_power_iterations: int = 0
    """Return ``jacobian_growth_B`` along a direction found in so many extra passes; 0 does not."""


class Observation(NamedTuple):
    """What one micro-batch of training tells the callbacks; carries no gradient."""

    num_loops: float
    """Passes, a mean over the rows of the micro-batch."""
    num_grad_loops: float
    """Passes that keep gradients, a mean over the rows."""
    nll: Tensor
    """This micro-batch's share of the step's mean negative log-likelihood: shares add up over the step."""
    penalties: dict[str, Tensor]
    """Its shares of the weighted penalties, by name."""
    num_tokens: int
    exit_prob_T: Tensor | None
    """Mean probability of leaving after each pass; None when halting is fixed."""
    router_stats: RouterStats | None
    trace: LoopTrace | None
    """Only from the last micro-batch of a step that records it, as is the next."""
    log_partition: Tensor | None = None
    """Mean over tokens of the log-partition of the output logits at the last exit."""
