"""Bytes for each token that the operations of each part of the model save for the backward."""

from dataclasses import dataclass

from mythos.account.parameters import Shapes, block_shapes, injection_shapes, num_matrix_elements
from mythos.config.model import DenseConfig, FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig, MoEConfig

FP32_BYTES = 4
_INT64_BYTES = 8
_INT32_BYTES = 4
_INT16_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What runs the operations; it decides what they save. The default is eager PyTorch on a CPU."""

    width: int = FP32_BYTES
    """Bytes of a number in matrix products: 4, or 2 in bf16."""
    state_width: int = FP32_BYTES
    """Bytes of a number in the residual stream: 4, or 2 with ``state_precision=bf16``."""
    casts_weights: bool = False
    """Whether bf16 products read copies of fp32 weights."""
    is_cuda: bool = False
    """Norms are one kernel, which saves its input and the root."""
    compiled: bool = False
    """Blocks are compiled: norms, activations and casts are made again in the backward."""
    fused_experts: bool = False
    """The kernels of ``mythos/moe/fused.py`` run."""
    shares_weights: bool = False
    """All passes of a step read one bf16 copy of each matrix of the blocks, and add to one sum of its gradients; of the
    experts' only where their kernels run."""
    ep_size: int = 1
    """Ranks that hold one set of experts; above 1 the mixture is not compiled."""
    expert_skew: float = 1.0
    """Rows that the fullest rank's experts receive over the mean; only counts with ``ep_size`` above 1."""

    @property
    def is_cast(self) -> bool:
        """Whether matrix products take copies of an fp32 stream."""
        return self.width != FP32_BYTES

    @property
    def shares_experts(self) -> bool:
        """Whether the experts' matrices are among those that passes share."""
        return self.shares_weights and self.fused_experts

    @property
    def compiles_mixture(self) -> bool:
        """Whether the mixture of experts is part of its block's graph."""
        return self.compiled and self.ep_size == 1


class SavedActivations:
    """Bytes by part. In eager bf16 every product saves a cast copy of its input of its own; norms and the residual
    stream stay in fp32. ``num_masked_keys`` is the length of a mask's row, 0 without a dense mask."""

    def __init__(self, model: ModelConfig, runtime: Runtime, num_masked_keys: int) -> None:
        self.model = model
        self.runtime = runtime
        self.width = runtime.width
        self.num_masked_keys = num_masked_keys

    @property
    def stream(self) -> int:
        """One vector of the residual stream."""
        return self.runtime.state_width * self.model.dim

    def norm(self, dim: int, num_groups: int = 1, width: int = FP32_BYTES) -> int:
        """Input and reciprocal root of an RMS norm over ``num_groups`` vectors; on a CPU also the normalised input.

        Norms compute in fp32; only a compiled block keeps a narrower input as it is.
        """
        if self.runtime.compiled:
            return num_groups * (min(width, self.runtime.state_width) * dim + FP32_BYTES)
        if self.runtime.is_cuda:
            return num_groups * (width * dim + FP32_BYTES)
        return FP32_BYTES * num_groups * (2 * dim + 1)

    def products(self, dim: int, num_products: int) -> int:
        """The input that ``num_products`` matrix products share."""
        return self.width * dim * (num_products if self.runtime.is_cast and not self.runtime.compiled else 1)

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
                latents = self.norm(head_dim, num_heads + num_kv_heads, self.width) if qk_norm else 0
                heads = 2 * query_dim + 2 * key_dim  # query, output; key, value
            case MLAConfig(num_heads=num_heads, kv_rank=kv_rank, query_rank=query_rank) as mla:
                ranks = [kv_rank] if query_rank is None else [kv_rank, query_rank]
                latents = sum(
                    (self.norm(rank, 1, self.width) if mla.qk_norm else 0) + self.width * rank for rank in ranks
                )
                expanded = mla.nope_head_dim + mla.value_head_dim  # keys and values lie in one tensor
                heads = num_heads * (2 * self.model.head_dim + expanded + mla.value_head_dim)
        log_partition, mask = FP32_BYTES * num_heads, self.width * self.num_masked_keys
        return self.products(self.model.dim, 3) + latents + self.width * heads + log_partition + mask

    def feed_forward(self, ffn: FeedForwardConfig) -> int:
        """A dense SwiGLU layer or a mixture of them."""
        match ffn:
            case DenseConfig(hidden_dim=hidden_dim):
                return self.products(self.model.dim, 2) + self.swiglu(hidden_dim, self.runtime.compiled)
            case MoEConfig():
                return self.mixture(ffn)

    def swiglu(self, hidden_dim: int, compiled: bool) -> int:
        """Two products and what they multiply to; not compiled, also the activation."""
        return self.width * (3 if compiled else 4) * hidden_dim

    def mixture(self, ffn: MoEConfig) -> int:
        """Router, rows of the routed experts, shared experts."""
        runtime, dim = self.runtime, self.model.dim
        compiled = runtime.compiles_mixture
        inputs = self.width * dim  # one cast for router and experts
        router = FP32_BYTES * (2 * ffn.num_experts + 3)
        if runtime.ep_size > 1:
            return inputs + router + self.spread(ffn) + self.swiglu(ffn.num_shared * ffn.hidden_dim, runtime.compiled)
        if runtime.is_cast and not runtime.is_cuda:
            router += FP32_BYTES * dim  # the fused router takes the cast; elsewhere it is made fp32 again
        shared = self.swiglu(ffn.num_shared * ffn.hidden_dim, compiled)
        return inputs + router + int(ffn.num_active * self.visit(ffn.hidden_dim)) + shared

    def visit(self, hidden_dim: int) -> float:
        """One token's visit to one expert: its places in both orders, rows in and out, hidden rows."""
        runtime, row = self.runtime, self.width * self.model.dim
        if runtime.fused_experts:
            return 2 * self.width * hidden_dim + 3 * _INT32_BYTES + FP32_BYTES
        return 2 * row + self.swiglu(hidden_dim, runtime.compiles_mixture) + 3 * _INT64_BYTES + 2 * FP32_BYTES

    def spread(self, ffn: MoEConfig) -> int:
        """A token's visits where experts lie on several ranks (``mythos/parallel/experts.py``).

        On few ranks each holds the tokens of all, with their weights and places, and keeps two products a row that it
        computes; on more, rows that come in stay as well, and the weighted rows that have come back.
        """
        runtime, row = self.runtime, self.width * self.model.dim
        products = 2 * self.width * ffn.hidden_dim
        if runtime.ep_size <= ffn.num_active:
            gathered = runtime.ep_size * (row + ffn.num_active * (FP32_BYTES + _INT32_BYTES))
            return int(gathered + ffn.num_active * runtime.expert_skew * (products + 2 * _INT32_BYTES))
        if not runtime.fused_experts:
            products = row + self.swiglu(ffn.hidden_dim, compiled=False)
        own, received = row + FP32_BYTES + 3 * _INT32_BYTES + _INT64_BYTES, row + products + 2 * _INT64_BYTES
        return int(ffn.num_active * (own + runtime.expert_skew * received))

    def backward(self, ffn: FeedForwardConfig) -> int:
        """What the backward of one layer's feed-forward part holds at most besides what was kept.

        Gradients of the stream, of hidden rows and their two products; with experts those of the rows.
        """
        streams, row = 2 * self.stream, self.width * self.model.dim
        hidden = 3 * self.width * ffn.hidden_dim
        match ffn:
            case DenseConfig():
                return streams + row + hidden
            case MoEConfig(num_active=num_active) if self.runtime.ep_size > 1:
                tokens = 2 * self.runtime.ep_size * row if self.runtime.ep_size <= num_active else num_active * row
                return streams + tokens + int(num_active * self.runtime.expert_skew * (row + hidden))
            case MoEConfig(num_active=num_active):
                return streams + num_active * (hidden + row * (1 if self.runtime.fused_experts else 2))

    def weight_gradients(self, ffn: FeedForwardConfig) -> int:
        """New gradients of one layer's experts, before they are added to those of other passes; not for each token.

        Where passes share sums of fp32 gradients, nothing is new.
        """
        runtime = self.runtime
        if not isinstance(ffn, MoEConfig) or (runtime.shares_experts and runtime.casts_weights):
            return 0
        num_elements = self._num_expert_elements
        casts = runtime.casts_weights and not runtime.fused_experts
        return num_elements * (FP32_BYTES + (self.width if casts else 0))

    @property
    def injection(self) -> int:
        """State and written input of the diagonal injection; both operands of the linear one, side by side."""
        model = self.model
        normed = self.norm(model.dim) if model.injection.update_rule == "parallel" else 0
        match model.injection.kind:
            case "diagonal":
                cast = self.width * model.dim if self.runtime.is_cast else 0
                if self.runtime.compiled:
                    return normed + self.stream + 2 * self.width * model.dim
                return normed + 2 * self.stream + cast
            case "linear":
                return normed + 2 * self.width * model.dim
            case "additive":
                return normed

    @property
    def expert_indices(self) -> int:
        """Experts chosen in one layer, which a recomputation repeats."""
        core = self.model.core_ffn
        return _INT16_BYTES * core.num_active if isinstance(core, MoEConfig) else 0

    @property
    def prelude_norm(self) -> int:
        """The norm that makes e."""
        return self.norm(self.model.dim) if self.model.prelude_norm else 0

    def logits(self, num_tokens: int) -> int:
        """Logits of so many tokens, their gradient with its two parts and its cast, and a cast copy of the head.

        Compiled, the fp32 logits and one part of the gradient are never written.
        """
        vocab_size, dim = self.model.vocab_size, self.model.dim
        each = 4 * FP32_BYTES + (self.width if self.runtime.is_cast else 0)
        if self.runtime.compiled:
            each = FP32_BYTES + 2 * self.width
        return num_tokens * vocab_size * each + self._copied(vocab_size * dim)

    @property
    def expert_copies(self) -> int:
        """Cast copies of one layer's experts on one rank; not for each token."""
        return self._copied(self._num_expert_elements)

    @property
    def core_copies(self) -> int:
        """Cast copies of one core layer's other matrices, shared by its passes; not for each token."""
        core = block_shapes(self.model, self.model.core_ffn)
        routed = _select(core, "experts.") | _select(core, "router.")
        return self._copied(num_matrix_elements({name: core[name] for name in core if name not in routed}))

    @property
    def dense_copies(self) -> int:
        """Cast copies of the matrices of prelude, coda and injection; not for each token."""
        num_blocks = self.model.num_prelude_layers + self.model.num_coda_layers
        num_elements = num_blocks * num_matrix_elements(block_shapes(self.model, self.model.ffn))
        return self._copied(num_elements + num_matrix_elements(injection_shapes(self.model)))

    @property
    def _num_expert_elements(self) -> int:
        experts = _select(block_shapes(self.model, self.model.core_ffn), "experts.")
        return num_matrix_elements(experts) // self.runtime.ep_size

    def _copied(self, num_elements: int) -> int:
        return self.width * num_elements if self.runtime.casts_weights else 0


def _select(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
