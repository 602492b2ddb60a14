"""Bytes of activations: what the forward of one micro-batch saves for its backward, under each remat policy."""

from dataclasses import dataclass, replace

from mythos.account.saved import Runtime, SavedActivations
from mythos.config.base import FP32_BYTES
from mythos.config.model import ModelConfig
from mythos.config.parallel import ParallelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationBytes:
    """Bytes of one micro-batch between forward and backward, on the device that runs it."""

    prelude: int
    """Held through the whole backward: activations of the prelude, e, the mask, and bf16 weight copies."""
    coda: int
    """Coda and head with one chunk of logits; freed before the backward reaches the core."""
    per_loop: int
    """Added by each loop with gradients; a loop without gradients adds nothing, except that a later loop may read the
    slots which it filled (``PartSpec.new_carry_elements``)."""
    host_per_loop: int
    """Added in host memory by each loop with gradients."""
    recomputed: int
    """Recomputed activations that the backward holds at one time: of a loop, of a block, or none."""
    backward: int
    """Gradients that the backward of one core layer holds at one time."""

    @property
    def fixed(self) -> int:
        """Bytes at the peak that do not depend on the number of loops."""
        return self.prelude + max(self.coda, self.recomputed + self.backward)

    def peak(self, num_grad_loops: float) -> float:
        """Peak of a forward and backward with gradients in the last ``num_grad_loops`` loops; others add nothing."""
        return self.fixed + num_grad_loops * self.per_loop


def activation_bytes(
    model: ModelConfig,
    parallel: ParallelConfig,
    batch_size: int,
    seq_len: int,
    *,
    mask_documents: bool,
    runtime: Runtime | None = None,
    num_exits: int = 1,
) -> ActivationBytes:
    """Count the bytes saved for the backward of ``batch_size`` sequences of ``seq_len`` tokens.

    Args:
        runtime: what runs the operations; None is eager PyTorch on a CPU, in the precision of ``parallel``.
        num_exits: exits with a loss; with more than one, each saves a coda and each loop saves its state.
    """
    assert parallel.remat != "auto", "choose_remat first"
    runtime = replace(runtime or eager(parallel), num_masked_keys=seq_len if mask_documents else 0)
    saved = SavedActivations(model, runtime)
    num_tokens, num_layers = batch_size * seq_len, model.num_core_layers
    dense_block = num_tokens * saved.block(model.ffn)
    core_block = num_tokens * (saved.block(model.core_ffn) + saved.in_attention)
    core_block += batch_size * saved.of_sequence_in_attention
    parts = num_tokens * saved.parts + batch_size * saved.of_sequence
    once = saved.dense_weight_copies
    if runtime.shares_experts:
        once += num_layers * saved.expert_weight_copies
    else:
        core_block += saved.expert_weight_copies
    state, expert_indices = num_tokens * saved.stream, num_tokens * saved.expert_indices
    carried = num_tokens * saved.carried + batch_size * saved.carried_by_sequence
    carried_by_blocks = num_tokens * saved.carried_by_blocks
    if runtime.shares_weights or parallel.remat == "none":
        once += num_layers * saved.core_weight_copies
        weight_copies = 0
    else:
        weight_copies = saved.core_weight_copies
    match parallel.remat:
        case "none":
            per_loop, recomputed = parts + num_layers * core_block, 0
        case "block":
            per_loop = parts + carried_by_blocks + num_layers * (state + expert_indices)
            recomputed = core_block + weight_copies
        case "loop":
            per_loop = num_layers * expert_indices + (0 if parallel.offload_states else carried)
            recomputed = parts + num_layers * (core_block + weight_copies)
    once += num_tokens * (saved.prelude_norm + runtime.num_masked_keys) + state + carried_by_blocks
    logits = saved.logits(min(num_tokens, model.head.chunk_tokens))
    coda = model.num_coda_layers * dense_block + num_tokens * saved.norm(model.dim) + state
    return ActivationBytes(
        prelude=model.num_prelude_layers * dense_block + once,
        coda=num_exits * coda + logits,
        per_loop=per_loop + (state if num_exits > 1 else 0),
        host_per_loop=carried if parallel.offload_states else 0,
        recomputed=recomputed,
        backward=num_tokens * saved.backward(model.core_ffn) + saved.weight_gradients(model.core_ffn),
    )


def eager(parallel: ParallelConfig) -> Runtime:
    """Return the runtime of eager PyTorch on a CPU."""
    is_bf16 = parallel.precision != "fp32"
    return Runtime(width=2 if is_bf16 else FP32_BYTES, casts_weights=is_bf16)
