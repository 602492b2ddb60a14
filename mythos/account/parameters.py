"""Parameters of a model: the shape of every tensor in a part, and the number of their elements."""

import math
from dataclasses import astuple, dataclass

from mythos.config.halting import FixedHalting, HaltingConfig
from mythos.config.model import DenseConfig, FeedForwardConfig, GQAConfig, MLAConfig, ModelConfig, MoEConfig
from mythos.config.part_spec import Shapes
from mythos.config.parts import Part, parts_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCounts:
    """Number of parameters by part; a norm counts in the part that holds it."""

    embedding: int
    prelude: int
    """Blocks and the norm of the prelude's output."""
    core: int
    """Blocks, and the norm that the parallel update rule adds."""
    parts: int
    """The injection and the loop parts."""
    coda: int
    head: int
    """The final norm, and the projection unless it is the embedding."""
    halting: int = 0
    """The gate of a learned halting."""

    @property
    def total(self) -> int:
        """All parts together; a tied matrix counts once."""
        return sum(astuple(self))


def count_parameters(
    model: ModelConfig, halting: HaltingConfig | None = None, *, active: bool = False
) -> ParameterCounts:
    """Count the parameters, each once for any number of loops, without a gate where no ``halting`` is given.

    With ``active``, count only the routed experts to which one token is routed in one loop.
    """
    dense_block = num_elements(block_shapes(model, model.ffn))
    core_block = num_elements(block_shapes(model, model.core_ffn, active=active))
    is_parallel = model.injection.update_rule == "parallel"
    return ParameterCounts(
        embedding=model.vocab_size * model.dim,
        prelude=model.num_prelude_layers * dense_block + (model.dim if model.prelude_norm else 0),
        core=model.num_core_layers * core_block + (model.dim if is_parallel else 0),
        parts=sum(num_in_part(part, model) for part in parts_of(model)),
        coda=model.num_coda_layers * dense_block,
        head=num_elements(head_shapes(model)),
        halting=num_elements(gate_shapes(model, halting)),
    )


def num_in_part(part: Part, model: ModelConfig) -> int:
    """Number of parameters of the injection or of a loop part."""
    in_block = sum(num_elements(shapes) for shapes in part.in_blocks(model).values())
    return num_elements(part.spec.shapes(part.config, model)) + model.num_core_layers * in_block


def num_elements(shapes: Shapes) -> int:
    """Number of elements in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())


def num_matrix_elements(shapes: Shapes) -> int:
    """Number of elements in the matrices, stacked or not; vectors are left out."""
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)


def block_shapes(model: ModelConfig, ffn: FeedForwardConfig, *, active: bool = False) -> Shapes:
    """Shapes in one block around ``ffn``; with ``active``, of the experts to which one token is routed."""
    norms = ["attention_norm", "ffn_norm"]
    if model.norm_position == "sandwich":
        norms += ["attention_post_norm", "ffn_post_norm"]
    shapes: Shapes = {f"{norm}.weight": (model.dim,) for norm in norms}
    return shapes | attention_shapes(model) | ffn_shapes(model.dim, ffn, active=active)


def attention_shapes(model: ModelConfig) -> Shapes:
    """Shapes in one attention layer."""
    match model.attention:
        case GQAConfig() as attention:
            return _gqa_shapes(model.dim, model.head_dim, attention)
        case MLAConfig() as attention:
            return _mla_shapes(model.dim, model.head_dim, attention)


def ffn_shapes(dim: int, ffn: FeedForwardConfig, *, active: bool = False) -> Shapes:
    """Shapes in one feed-forward layer; with ``active``, of the experts to which one token is routed."""
    match ffn:
        case DenseConfig(hidden_dim=hidden_dim):
            return _swiglu_shapes(dim, hidden_dim)
        case MoEConfig(num_experts=num_experts, num_active=num_active, hidden_dim=hidden_dim):
            stack = num_active if active else num_experts
            shapes: Shapes = {
                "router.gate.weight": (num_experts, dim),
                "experts.w1": (stack, hidden_dim, dim),
                "experts.w2": (stack, dim, hidden_dim),
                "experts.w3": (stack, hidden_dim, dim),
            }
            shared = _swiglu_shapes(dim, ffn.num_shared * hidden_dim) if ffn.num_shared else {}
            return shapes | {f"shared_experts.{name}": shape for name, shape in shared.items()}


def head_shapes(model: ModelConfig) -> Shapes:
    """Shapes in the head; a tied projection belongs to the embedding."""
    norm: Shapes = {"norm.weight": (model.dim,)}
    return norm if model.head.tied else norm | {"projection.weight": (model.vocab_size, model.dim)}


def gate_shapes(model: ModelConfig, halting: HaltingConfig | None) -> Shapes:
    """Shapes in the halting gate; empty where halting is fixed."""
    if halting is None or isinstance(halting, FixedHalting):
        return {}
    return {"w1": (halting.hidden_dim, model.dim), "w2": (1, halting.hidden_dim), "bias": (1,)}


def _gqa_shapes(dim: int, head_dim: int, attention: GQAConfig) -> Shapes:
    query_dim, key_dim = attention.num_heads * head_dim, attention.num_kv_heads * head_dim
    shapes: Shapes = {
        "q_proj.weight": (query_dim, dim),
        "k_proj.weight": (key_dim, dim),
        "v_proj.weight": (key_dim, dim),
        "o_proj.weight": (dim, query_dim),
    }
    if attention.qk_norm:
        shapes |= {"q_norm.weight": (head_dim,), "k_norm.weight": (head_dim,)}
    return shapes


def _mla_shapes(dim: int, head_dim: int, attention: MLAConfig) -> Shapes:
    num_heads, query_rank, kv_rank = attention.num_heads, attention.query_rank, attention.kv_rank
    shapes: Shapes = {
        "kv_down.weight": (kv_rank, dim),
        "k_rope.weight": (attention.rope_head_dim, dim),
        "kv_up.weight": (num_heads * (attention.nope_head_dim + attention.value_head_dim), kv_rank),
        "o_proj.weight": (dim, num_heads * attention.value_head_dim),
    }
    if query_rank is None:
        shapes["q_proj.weight"] = (num_heads * head_dim, dim)
    else:
        shapes |= {"q_down.weight": (query_rank, dim), "q_up.weight": (num_heads * head_dim, query_rank)}
    if attention.qk_norm:
        shapes["kv_latent_norm.weight"] = (kv_rank,)
        if query_rank is not None:
            shapes["q_latent_norm.weight"] = (query_rank,)
    return shapes


def _swiglu_shapes(dim: int, hidden_dim: int) -> Shapes:
    return {
        "w1.weight": (hidden_dim, dim),
        "w2.weight": (dim, hidden_dim),
        "w3.weight": (hidden_dim, dim),
    }
