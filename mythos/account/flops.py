"""FLOPs of one token: a multiply-add counts as two; norms, rotary embedding, softmax and lookups are not counted.

A forward runs prelude, coda and head once and the core num_loops times; a step whose loss reads more exits runs coda
and head for each. Training adds the backward, twice the forward, for everything but the loops without gradients;
recomputation is never counted. All figures are linear in num_loops, num_grad_loops and num_exits, so that the means of
a depth policy give the mean cost.
"""

from dataclasses import dataclass

from mythos.account.parameters import block_shapes, gate_shapes, num_matrix_elements
from mythos.config.halting import PonderHalting
from mythos.config.model import FeedForwardConfig, MLAConfig, ModelConfig
from mythos.config.parts import parts_of
from mythos.config.run import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """FLOPs of one token, by kind."""

    matrices: float
    """Products with parameters: projections, experts, router, injection, loop parts, head."""
    attention: float
    """Scores and weighted values; a causal mask leaves half of the sequence on average."""

    @property
    def total(self) -> float:
        """All FLOPs."""
        return self.matrices + self.attention

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(matrices=self.matrices + other.matrices, attention=self.attention + other.attention)

    def __mul__(self, factor: float) -> "Flops":
        return Flops(matrices=self.matrices * factor, attention=self.attention * factor)


def forward_flops(model: ModelConfig, seq_len: int, num_loops: float) -> Flops:
    """FLOPs of one token's forward with ``num_loops`` loops, in sequences of ``seq_len`` tokens."""
    return outer_flops(model, seq_len) + loop_flops(model, seq_len) * num_loops


def training_flops(model: ModelConfig, seq_len: int, num_loops: float, num_grad_loops: float) -> Flops:
    """FLOPs of one token's forward and backward; ``num_grad_loops`` of the loops have gradients."""
    num_forwards = num_loops + 2 * num_grad_loops
    return outer_flops(model, seq_len) * 3 + loop_flops(model, seq_len) * num_forwards


def run_flops(run: RunConfig, num_loops: float, num_grad_loops: float, num_exits: float | None = None) -> Flops:
    """FLOPs of one token in a training step of a run, with all that its halting and its penalties compute.

    Args:
        num_exits: mean number of exits that the loss reads; None for that of ``num_loops``.
    """
    model, seq_len = run.model, run.data.seq_len
    outer = outer_flops(model, seq_len, run.num_exits(num_loops) if num_exits is None else num_exits)
    loop, gate = loop_flops(model, seq_len), _gate_flops(run) * num_loops
    if isinstance(run.halting, PonderHalting) and run.halting.train == "gate":
        return outer + loop * num_loops + gate * 2
    num_forwards = num_loops + 2 * num_grad_loops
    if run.objective.jacobian:  # two more loops with gradients, and without them one and the power iterations
        num_forwards += 2 * 3 + 1 + run.objective.num_power_iterations
    return outer * 3 + loop * num_forwards + gate * 3


def outer_flops(model: ModelConfig, seq_len: int, num_exits: float = 1) -> Flops:
    """Forward FLOPs of the parts outside the loop: the prelude, and coda and head for each exit."""
    block, head = _block_flops(model, model.ffn, seq_len), Flops(matrices=2 * model.vocab_size * model.dim, attention=0)
    return block * model.num_prelude_layers + (block * model.num_coda_layers + head) * num_exits


def loop_flops(model: ModelConfig, seq_len: int) -> Flops:
    """Forward FLOPs of one loop of the core, its injection and its parts included."""
    blocks = _block_flops(model, model.core_ffn, seq_len) * model.num_core_layers
    matrices, total = (
        sum(part.spec.flops(part.config, model, length) for part in parts_of(model)) for length in (0, seq_len)
    )
    return blocks + Flops(matrices=matrices, attention=total - matrices)


def _gate_flops(run: RunConfig) -> Flops:
    """Forward FLOPs of the halting gate after one loop."""
    return Flops(matrices=2 * num_matrix_elements(gate_shapes(run.model, run.halting)), attention=0)


def _block_flops(model: ModelConfig, ffn: FeedForwardConfig, seq_len: int) -> Flops:
    attention = model.attention
    value_head_dim = attention.value_head_dim if isinstance(attention, MLAConfig) else model.head_dim
    mean_keys = seq_len / 2
    return Flops(
        matrices=2 * num_matrix_elements(block_shapes(model, ffn, active=True)),
        attention=2 * mean_keys * attention.num_heads * (model.head_dim + value_head_dim),
    )
