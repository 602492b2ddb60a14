"""Bytes that activations take: what one micro-batch's forward keeps for its backward, under each remat policy."""

from dataclasses import dataclass

from mythos.account.parameters import Shapes, block_shapes, injection_shapes, num_matrix_elements
from mythos.config.model import DenseConfig, FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig, MoEConfig
from mythos.config.parallel import ParallelConfig

_FP32_BYTES = 4
_INT64_BYTES = 8
_INT16_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationBytes:
    """Bytes of one micro-batch between forward and backward, on the device that runs it."""

    prelude: int
    """What stays through the whole backward: the prelude's share, e, the mask, and bf16 copies of weights."""
    coda: int
    """Coda and head with one chunk of logits; gone before the backward reaches the core."""
    per_pass: int
    """Added by each pass that keeps gradients; a pass without gradients adds nothing."""
    host_per_pass: int
    """Added in host memory by each pass that keeps gradients."""
    recomputed: int
    """What the backward computes again and holds at one time: a pass, a block, or nothing."""

    @property
    def fixed(self) -> int:
        """What is held at the peak whatever the number of passes."""
        return self.prelude + max(self.coda, self.recomputed)

    def peak(self, num_grad_loops: float) -> float:
        """Peak of a forward and backward whose last ``num_grad_loops`` passes keep gradients; T does not enter."""
        return self.fixed + num_grad_loops * self.per_pass


def activation_bytes(
    model: ModelConfig, parallel: ParallelConfig, batch_size: int, seq_len: int, *, mask_documents: bool
) -> ActivationBytes:
    """Bytes that eager operations keep for the backward of ``batch_size`` sequences of ``seq_len`` tokens.

    One exit and fixed halting; temporaries of the backward itself are left out, but for those of the logits.
    """
    kept = _Kept(model, _FP32_BYTES if parallel.precision == "fp32" else 2, seq_len if mask_documents else 0)
    num_tokens, num_layers = batch_size * seq_len, model.num_core_layers
    dense_block = num_tokens * kept.block(model.ffn)
    core_block = num_tokens * kept.block(model.core_ffn) + kept.expert_copies
    injection = num_tokens * kept.injection
    once = kept.dense_copies
    state, choices = num_tokens * kept.stream, num_tokens * kept.choices
    match parallel.remat:
        case "none":
            per_pass, recomputed = injection + num_layers * core_block, 0
            once += num_layers * kept.core_copies
        case "block":
            per_pass, recomputed = injection + num_layers * (state + choices), core_block + kept.core_copies
        case "loop":
            per_pass = num_layers * choices + (0 if parallel.offload_states else state)
            recomputed = injection + num_layers * (core_block + kept.core_copies)
    once += num_tokens * (kept.prelude_norm + kept.num_masked_keys) + state
    logits = kept.logits(min(num_tokens, model.head.chunk_tokens))
    return ActivationBytes(
        prelude=model.num_prelude_layers * dense_block + once,
        coda=model.num_coda_layers * dense_block + num_tokens * kept.norm(model.dim) + state + logits,
        per_pass=per_pass,
        host_per_pass=state if parallel.offload_states else 0,
        recomputed=recomputed,
    )


class _Kept:
    """Bytes for each token that the operations of each part save for the backward.

    ``width`` is the bytes of a number in matrix products, 2 under bf16 autocast: there every product saves a cast
    copy of its input of its own, while norms and the residual stream stay in fp32. ``num_masked_keys`` is the length
    of a mask's row, 0 without a mask.
    """

    def __init__(self, model: ModelConfig, width: int, num_masked_keys: int) -> None:
        self.model = model
        self.width = width
        self.is_cast = width != _FP32_BYTES
        self.num_masked_keys = num_masked_keys

    @property
    def stream(self) -> int:
        """One vector of the residual stream."""
        return _FP32_BYTES * self.model.dim

    def norm(self, dim: int, num_groups: int = 1) -> int:
        """Input, normalised input and reciprocal root of an RMS norm over ``num_groups`` vectors."""
        return _FP32_BYTES * num_groups * (2 * dim + 1)

    def products(self, dim: int, num_products: int) -> int:
        """The input that ``num_products`` matrix products share."""
        return self.width * dim * (num_products if self.is_cast else 1)

    def block(self, ffn: FeedForwardConfig) -> int:
        """One layer, its input included and its output left out."""
        num_norms = 4 if self.model.norm_position == "sandwich" else 2
        return num_norms * self.norm(self.model.dim) + self.attention() + self.feed_forward(ffn)

    def attention(self) -> int:
        """Projections, their norms, and what scaled dot-product attention saves."""
        match self.model.attention:
            case GQAConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, qk_norm=qk_norm):
                head_dim = self.model.head_dim
                query_dim, key_dim = num_heads * head_dim, num_kv_heads * head_dim
                latents = self.norm(head_dim, num_heads + num_kv_heads) if qk_norm else 0
                heads = 2 * query_dim + 2 * key_dim  # query, output; key, value
            case MLAConfig(num_heads=num_heads, kv_rank=kv_rank, query_rank=query_rank) as mla:
                ranks = [kv_rank] if query_rank is None else [kv_rank, query_rank]
                latents = sum((self.norm(rank) if mla.qk_norm else 0) + self.width * rank for rank in ranks)
                expanded = mla.nope_head_dim + mla.value_head_dim  # keys and values lie in one tensor
                heads = num_heads * (2 * self.model.head_dim + expanded + mla.value_head_dim)
        log_partition, mask = _FP32_BYTES * num_heads, self.width * self.num_masked_keys
        return self.products(self.model.dim, 3) + latents + self.width * heads + log_partition + mask

    def feed_forward(self, ffn: FeedForwardConfig) -> int:
        """SwiGLU layers hold two products, the activation and what they multiply to."""
        match ffn:
            case DenseConfig(hidden_dim=hidden_dim):
                return self.products(self.model.dim, 2) + self.width * 4 * hidden_dim
            case MoEConfig(num_active=num_active, hidden_dim=hidden_dim):
                inputs = self.products(self.model.dim, 2) if ffn.num_shared or not self.is_cast else 0
                router = _FP32_BYTES * (2 * ffn.num_experts + 3) + (self.stream if self.is_cast else 0)
                places = num_active * (3 * _INT64_BYTES + 2 * _FP32_BYTES)
                visits = num_active * self.width * (2 * self.model.dim + 4 * hidden_dim)
                return inputs + router + places + visits + self.width * 4 * ffn.num_shared * hidden_dim

    @property
    def injection(self) -> int:
        """State and written input of the diagonal injection; both operands of the linear one, side by side."""
        model = self.model
        normed = self.norm(model.dim) if model.injection.spelling == "parallel" else 0
        match model.injection.kind:
            case "diagonal":
                cast = self.width * model.dim if self.is_cast else 0
                return normed + 2 * self.stream + cast
            case "linear":
                return normed + 2 * self.width * model.dim
            case "additive":
                return normed

    @property
    def choices(self) -> int:
        """Experts chosen in one layer, which a recomputation repeats."""
        core = self.model.core_ffn
        return _INT16_BYTES * core.num_active if isinstance(core, MoEConfig) else 0

    @property
    def prelude_norm(self) -> int:
        """The norm that makes e."""
        return self.norm(self.model.dim) if self.model.prelude_norm else 0

    def logits(self, num_tokens: int) -> int:
        """Logits of so many tokens, their gradient with its two parts and its cast, and a cast copy of the head."""
        vocab_size, dim = self.model.vocab_size, self.model.dim
        each = 4 * _FP32_BYTES + (self.width if self.is_cast else 0)
        return num_tokens * vocab_size * each + self._copied({"head": (vocab_size, dim)})

    @property
    def expert_copies(self) -> int:
        """Cast copies of one layer's experts, made anew in every pass; not for each token."""
        return self._copied(_select(block_shapes(self.model, self.model.core_ffn), "experts."))

    @property
    def core_copies(self) -> int:
        """Cast copies of one core layer's other matrices, shared by its passes; not for each token."""
        core = block_shapes(self.model, self.model.core_ffn)
        routed = _select(core, "experts.") | _select(core, "router.")
        return self._copied({name: shape for name, shape in core.items() if name not in routed})

    @property
    def dense_copies(self) -> int:
        """Cast copies of the matrices of prelude, coda and injection; not for each token."""
        num_blocks = self.model.num_prelude_layers + self.model.num_coda_layers
        blocks = num_blocks * self._copied(block_shapes(self.model, self.model.ffn))
        return blocks + self._copied(injection_shapes(self.model))

    def _copied(self, shapes: Shapes) -> int:
        return self.width * num_matrix_elements(shapes) if self.is_cast else 0


def _select(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
