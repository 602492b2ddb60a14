"""Saved activations: bytes for each token that the operations of each part of the model save for the backward."""

from dataclasses import dataclass

from mythos.account.parameters import block_shapes, num_in_part, num_matrix_elements
from mythos.config.base import FP32_BYTES
from mythos.config.model import DenseConfig, FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig, MoEConfig
from mythos.config.part_spec import Shapes
from mythos.config.parts import Part, parts_of

_INT64_BYTES = 8
_INT32_BYTES = 4
_INT16_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Properties of the runtime that determine what operations save. The default is eager PyTorch on a CPU."""

    width: int = FP32_BYTES
    """Bytes of an element in matrix products: 4, or 2 in bf16."""
    state_width: int = FP32_BYTES
    """Bytes of an element of the residual stream: 4, or 2 with ``state_precision=bf16``."""
    casts_weights: bool = False
    """Whether bf16 products read bf16 copies of fp32 weights."""
    is_cuda: bool = False
    """A norm is one kernel, which saves its input and the reciprocal root."""
    compiled: bool = False
    """Blocks are compiled: norms, activations and casts are recomputed in the backward."""
    fused_experts: bool = False
    """The experts run the kernels of ``mythos/moe/fused.py``."""
    shares_weights: bool = False
    """All loops of a step read one bf16 copy of each matrix of the blocks and add to one accumulator of its gradient;
    for the experts' matrices only with the fused kernels."""
    ep_size: int = 1
    """Ranks over which the experts are sharded; above 1 the mixture is not compiled."""
    num_masked_keys: int = 0
    """Length of the row of a dense mask; 0 without one."""
    expert_skew: float = 1.0
    """Ratio of the rows that the fullest rank's experts receive to the mean; used only with ``ep_size`` above 1."""

    @property
    def is_cast(self) -> bool:
        """Whether matrix products read cast copies of an fp32 stream."""
        return self.width != FP32_BYTES

    @property
    def shares_experts(self) -> bool:
        """Whether loops share weight copies of the experts."""
        return self.shares_weights and self.fused_experts

    @property
    def compiles_mixture(self) -> bool:
        """Whether the mixture of experts is part of its block's compiled graph."""
        return self.compiled and self.ep_size == 1


class SavedActivations:
    """Saved activations by part. In eager bf16 each product saves its own cast copy of its input; norms and the
    residual stream stay in fp32."""

    def __init__(self, model: ModelConfig, runtime: Runtime) -> None:
        self.model = model
        self.runtime = runtime
        self.width = runtime.width

    @property
    def stream(self) -> int:
        """Bytes of one vector of the residual stream."""
        return self.runtime.state_width * self.model.dim

    def norm(self, dim: int, num_groups: int = 1, width: int = FP32_BYTES) -> int:
        """Input and reciprocal root of an RMS norm over ``num_groups`` vectors; on a CPU also the normalised input.

        Norms compute in fp32; only a compiled block saves a narrower input without a cast.
        """
        if self.runtime.compiled:
            return num_groups * (min(width, self.runtime.state_width) * dim + FP32_BYTES)
        if self.runtime.is_cuda:
            return num_groups * (width * dim + FP32_BYTES)
        return FP32_BYTES * num_groups * (2 * dim + 1)

    def products(self, dim: int, num_products: int) -> int:
        """Saved input of ``num_products`` matrix products that share it."""
        return self.width * dim * (num_products if self.runtime.is_cast and not self.runtime.compiled else 1)

    def block(self, ffn: FeedForwardConfig) -> int:
        """One block, with its input and without its output."""
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
                expanded = mla.nope_head_dim + mla.value_head_dim  # keys and values are one tensor
                heads = num_heads * (2 * self.model.head_dim + expanded + mla.value_head_dim)
        log_partition, mask = FP32_BYTES * num_heads, self.width * self.runtime.num_masked_keys
        return self.products(self.model.dim, 3) + latents + self.width * heads + log_partition + mask

    def feed_forward(self, ffn: FeedForwardConfig) -> int:
        """A dense SwiGLU layer or a mixture of them."""
        match ffn:
            case DenseConfig(hidden_dim=hidden_dim):
                return self.products(self.model.dim, 2) + self.swiglu(hidden_dim, self.runtime.compiled)
            case MoEConfig():
                return self.mixture(ffn)

    def swiglu(self, hidden_dim: int, compiled: bool) -> int:
        """Two products and their SwiGLU output; also the activation if not compiled."""
        return self.width * (3 if compiled else 4) * hidden_dim

    def mixture(self, ffn: MoEConfig) -> int:
        """Router, rows of the routed experts, and shared experts."""
        runtime, dim = self.runtime, self.model.dim
        compiled = runtime.compiles_mixture
        inputs = self.width * dim  # router and experts share one cast
        router = FP32_BYTES * (2 * ffn.num_experts + 3)
        if runtime.ep_size > 1:
            shared = self.swiglu(ffn.num_shared * ffn.hidden_dim, runtime.compiled)
            return inputs + router + self.expert_parallel(ffn) + shared
        if runtime.is_cast and not runtime.is_cuda:
            router += FP32_BYTES * dim  # the fused router reads the cast; otherwise it is cast back to fp32
        shared = self.swiglu(ffn.num_shared * ffn.hidden_dim, compiled)
        return inputs + router + int(ffn.num_active * self.routed_token(ffn.hidden_dim)) + shared

    def routed_token(self, hidden_dim: int) -> float:
        """One token-expert assignment: its index in both orders, input and output rows, hidden rows."""
        runtime, row = self.runtime, self.width * self.model.dim
        if runtime.fused_experts:
            return 2 * self.width * hidden_dim + 3 * _INT32_BYTES + FP32_BYTES
        return 2 * row + self.swiglu(hidden_dim, runtime.compiles_mixture) + 3 * _INT64_BYTES + 2 * FP32_BYTES

    def expert_parallel(self, ffn: MoEConfig) -> int:
        """One token's assignments with sharded experts (``mythos/parallel/experts.py``).

        On few ranks each rank gathers the tokens of all, with their weights and expert indices, and saves two products
        of each row that it computes; on more ranks it also saves the received rows and the weighted results.
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
        """Peak of temporary bytes in the backward of one feed-forward layer.

        Gradients of the stream, of hidden rows and of their two products; with experts also those of the rows.
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
        """New gradients of one layer's experts, before they are added to those of other loops; not for each token.

        Zero where loops add to shared fp32 gradient accumulators.
        """
        runtime = self.runtime
        if not isinstance(ffn, MoEConfig) or (runtime.shares_experts and runtime.casts_weights):
            return 0
        num_elements = self._num_expert_elements
        casts = runtime.casts_weights and not runtime.fused_experts
        return num_elements * (FP32_BYTES + (self.width if casts else 0))

    @property
    def parts(self) -> int:
        """What the injection, the norm of the parallel update rule, and the loop parts save in one loop."""
        model = self.model
        normed = self.norm(model.dim) if model.injection.update_rule == "parallel" else 0
        return normed + sum(part.spec.saved_activations(part.config, model, self.runtime) for part in parts_of(model))

    @property
    def in_attention(self) -> int:
        """What the loop parts save in one loop inside the attention of one block."""
        return sum(part.spec.saved_in_attention(part.config, self.model, self.runtime) for part in parts_of(self.model))

    @property
    def carried(self) -> int:
        """What a loop hands to the next: one vector of the residual stream, and what it makes of the parts' carries."""
        return self.stream + sum(map(self._new_carry, parts_of(self.model)))

    @property
    def of_sequence(self) -> int:
        """What the parts save in one loop for each sequence, besides what they save for its tokens."""
        return sum(
            part.spec.of_sequence.saved_activations(part.config, self.model, self.runtime)
            for part in parts_of(self.model)
        )

    @property
    def of_sequence_in_attention(self) -> int:
        """What the parts save in one loop for each sequence inside the attention of one block."""
        return sum(
            part.spec.of_sequence.saved_in_attention(part.config, self.model, self.runtime)
            for part in parts_of(self.model)
        )

    @property
    def carried_by_sequence(self) -> int:
        """What the parts carry for each sequence, besides what they carry for its tokens."""
        return self.runtime.state_width * sum(
            part.spec.of_sequence.carry_elements(part.config, self.model) for part in parts_of(self.model)
        )

    @property
    def carried_by_blocks(self) -> int:
        """What the parts inside the attention of the blocks carry."""
        return sum(self._new_carry(part) for part in parts_of(self.model) if part.spec.attention_build is not None)

    def _new_carry(self, part: Part) -> int:
        widths = {"state": self.runtime.state_width, "product": self.width, "fp32": FP32_BYTES}
        num_elements = part.spec.new_carry_elements or part.spec.carry_elements
        return widths[part.spec.carry_dtype] * num_elements(part.config, self.model)

    @property
    def expert_indices(self) -> int:
        """Expert indices of one layer, which the recomputation reuses."""
        core = self.model.core_ffn
        return _INT16_BYTES * core.num_active if isinstance(core, MoEConfig) else 0

    @property
    def prelude_norm(self) -> int:
        """The norm of the prelude's output e."""
        return self.norm(self.model.dim) if self.model.prelude_norm else 0

    def logits(self, num_tokens: int) -> int:
        """Logits of ``num_tokens`` tokens, their gradient with its two parts and its cast, and a cast copy of the head.

        Compiled code never writes the fp32 logits and one part of the gradient.
        """
        vocab_size, dim = self.model.vocab_size, self.model.dim
        logit_bytes = 4 * FP32_BYTES + (self.width if self.runtime.is_cast else 0)
        if self.runtime.compiled:
            logit_bytes = FP32_BYTES + 2 * self.width
        return num_tokens * vocab_size * logit_bytes + self._copy_bytes(vocab_size * dim)

    @property
    def expert_weight_copies(self) -> int:
        """Weight copies of one layer's experts on one rank; not for each token."""
        return self._copy_bytes(self._num_expert_elements)

    @property
    def core_weight_copies(self) -> int:
        """Weight copies of one core layer's other matrices, shared by its loops; not for each token."""
        core = block_shapes(self.model, self.model.core_ffn)
        routed = _select(core, "experts.") | _select(core, "router.")
        return self._copy_bytes(num_matrix_elements({name: core[name] for name in core if name not in routed}))

    @property
    def dense_weight_copies(self) -> int:
        """Weight copies of the matrices of prelude, coda, injection and parts; not for each token."""
        num_blocks = self.model.num_prelude_layers + self.model.num_coda_layers
        num_elements = num_blocks * num_matrix_elements(block_shapes(self.model, self.model.ffn))
        for part in parts_of(self.model):  # a part may also multiply by matrices of a block
            products = int(part.spec.flops(part.config, self.model, 0)) // 2
            num_elements += min(products, num_in_part(part, self.model))
        return self._copy_bytes(num_elements)

    @property
    def _num_expert_elements(self) -> int:
        experts = _select(block_shapes(self.model, self.model.core_ffn), "experts.")
        return num_matrix_elements(experts) // self.runtime.ep_size

    def _copy_bytes(self, num_elements: int) -> int:
        return self.width * num_elements if self.runtime.casts_weights else 0


def _select(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
