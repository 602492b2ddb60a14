"""Bytes that activations take: what one micro-batch's forward keeps for its backward, under each remat policy."""

from dataclasses import dataclass

from mythos.account.saved import FP32_BYTES, Runtime, SavedActivations
from mythos.config.model import ModelConfig
from mythos.config.parallel import ParallelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationBytes:
    """Bytes of one micro-batch between forward and backward, on the device that runs it."""

    prelude: int
    """What stays through the whole backward: the prelude's share, e, the mask, and bf16 copies of weights."""
    coda: int
    """Coda and head with one chunk of logits; gone before the backward reaches the core."""
    per_loop: int
    """Added by each pass that keeps gradients; a pass without gradients adds nothing."""
    host_per_loop: int
    """Added in host memory by each pass that keeps gradients."""
    recomputed: int
    """What the backward computes again and holds at one time: a pass, a block, or nothing."""
    backward: int
    """Gradients that the backward of one core layer holds at one time."""

    @property
    def fixed(self) -> int:
        """What is held at the peak whatever the number of passes."""
        return self.prelude + max(self.coda, self.recomputed + self.backward)

    def peak(self, num_grad_loops: float) -> float:
        """Peak of a forward and backward whose last ``num_grad_loops`` passes keep gradients; T does not enter."""
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
    """Bytes that the operations keep for the backward of ``batch_size`` sequences of ``seq_len`` tokens.

    Args:
        runtime: what runs them; None is eager PyTorch on a CPU, in the precision of ``parallel``.
        num_exits: passes whose loss is read; more than one keep a coda each, and every pass its state.
    """
    assert parallel.remat != "auto", "choose_remat first"
    runtime = runtime or eager(parallel)
    saved = SavedActivations(model, runtime, seq_len if mask_documents else 0)
    num_tokens, num_layers = batch_size * seq_len, model.num_core_layers
    dense_block = num_tokens * saved.block(model.ffn)
    core_block = num_tokens * saved.block(model.core_ffn)
    injection = num_tokens * saved.injection
    once = saved.dense_copies
    if runtime.shares_experts:
        once += num_layers * saved.expert_copies
    else:
        core_block += saved.expert_copies
    state, expert_indices = num_tokens * saved.stream, num_tokens * saved.expert_indices
    if runtime.shares_weights or parallel.remat == "none":
        once += num_layers * saved.core_copies
        copies = 0
    else:
        copies = saved.core_copies
    match parallel.remat:
        case "none":
            per_loop, recomputed = injection + num_layers * core_block, 0
        case "block":
            per_loop, recomputed = injection + num_layers * (state + expert_indices), core_block + copies
        case "loop":
            per_loop = num_layers * expert_indices + (0 if parallel.offload_states else state)
            recomputed = injection + num_layers * (core_block + copies)
    once += num_tokens * (saved.prelude_norm + saved.num_masked_keys) + state
    logits = saved.logits(min(num_tokens, model.head.chunk_tokens))
    coda = model.num_coda_layers * dense_block + num_tokens * saved.norm(model.dim) + state
    return ActivationBytes(
        prelude=model.num_prelude_layers * dense_block + once,
        coda=num_exits * coda + logits,
        per_loop=per_loop + (state if num_exits > 1 else 0),
        host_per_loop=state if parallel.offload_states else 0,
        recomputed=recomputed,
        backward=num_tokens * saved.backward(model.core_ffn) + saved.weight_gradients(model.core_ffn),
    )


def eager(parallel: ParallelConfig) -> Runtime:
    """Operations of PyTorch on a CPU, one after the other."""
    is_bf16 = parallel.precision != "fp32"
    return Runtime(width=2 if is_bf16 else FP32_BYTES, casts_weights=is_bf16)
