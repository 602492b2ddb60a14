"""The architecture: prelude, core, coda, and what loops the core."""

from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Count, NonNegative, Positive, PositiveInt, config
from mythos.config.injection import InjectionConfig
from mythos.config.parts import LoopConfig


@config
class GQAConfig:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245); equal head counts give plain MHA."""

    kind: Literal["gqa"] = "gqa"
    num_heads: PositiveInt
    """Query heads."""
    num_kv_heads: PositiveInt
    """Heads of keys and values, which divide ``num_heads``."""
    head_dim: PositiveInt | None = None
    """Width of one head; null means dim / num_heads."""
    qk_norm: bool = True
    """Normalise queries and keys."""
    rope_base: Positive = 50_000.0
    """Base of the rotary embedding; a larger one suits longer sequences."""

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads is {self.num_heads} and num_kv_heads is {self.num_kv_heads}; "
                "every key-value head serves the same number of query heads, so the first must be a multiple."
            )
        if self.head_dim is not None and self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; rotary embedding rotates pairs, so make it even.")


@config
class MLAConfig:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values from one small latent."""

    kind: Literal["mla"] = "mla"
    num_heads: PositiveInt
    """Heads of queries, keys and values."""
    query_rank: PositiveInt | None = None
    """Width of the query latent; null projects queries from the full width."""
    kv_rank: PositiveInt
    """Width of the latent that keys and values share, and that the decoding cache holds."""
    nope_head_dim: PositiveInt
    """Part of each query and key that carries no position."""
    rope_head_dim: PositiveInt
    """Part that is rotated; its key is shared by all heads."""
    value_head_dim: PositiveInt
    """Width of the values of one head."""
    qk_norm: bool = True
    """Normalise the latents, which bounds queries and keys through their projections."""
    rope_base: Positive = 50_000.0
    """Base of the rotary embedding; a larger one suits longer sequences."""

    def __post_init__(self) -> None:
        if self.rope_head_dim % 2:
            raise ValueError(f"rope_head_dim is {self.rope_head_dim}; rotary embedding rotates pairs, so make it even.")


AttentionConfig = Annotated[GQAConfig | MLAConfig, Field(discriminator="kind")]


@config
class DenseConfig:
    """A SwiGLU feed-forward layer (Shazeer 2020, arXiv 2002.05202)."""

    kind: Literal["dense"] = "dense"
    hidden_dim: PositiveInt
    """Hidden width."""


@config
class MoEConfig:
    """Fine-grained routed experts beside shared ones (DeepSeekMoE, arXiv 2401.06066)."""

    kind: Literal["moe"] = "moe"
    num_experts: PositiveInt
    """Routed experts of each layer of the core."""
    num_active: PositiveInt
    """Routed experts of each token (top-k)."""
    hidden_dim: PositiveInt
    """Hidden width of one expert."""
    num_shared: Count = 1
    """Experts that every token uses; computed as one layer of ``num_shared`` times the width."""
    score: Literal["sigmoid", "softmax"] = "sigmoid"
    """Function of the router's logits; the scores select the experts, once the bias is added, and weigh them."""
    normalize_weights: bool = True
    """Divide the scores of a token's experts by their sum."""
    weight_scale: Positive = 1.0
    """Factor on the routed experts' weights after normalisation."""
    dispatch: Literal["grouped", "naive"] = "grouped"
    """``grouped`` sorts tokens by expert for one grouped product; ``naive`` computes one expert after another."""

    def __post_init__(self) -> None:
        if self.num_active > self.num_experts:
            raise ValueError(
                f"num_active is {self.num_active} but num_experts is {self.num_experts}; "
                "a token cannot be routed to more experts than there are."
            )
        if self.dispatch == "grouped" and self.hidden_dim % 8:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}; grouped products need rows of 16 bytes, "
                "so make it a multiple of 8 or set dispatch=naive."
            )

    @property
    def largest_violation(self) -> float:
        """Load violation where all tokens are routed to the same experts; 0 where each is routed to all."""
        return self.num_experts / self.num_active - 1


FeedForwardConfig = Annotated[DenseConfig | MoEConfig, Field(discriminator="kind")]


@config
class HeadConfig:
    """Final norm, projection to the vocabulary, cross-entropy."""

    tied: bool = True
    """Use the embedding matrix as the projection."""
    soft_cap: Positive | None = None
    """Squash logits to c tanh(logits / c) (Gemma 2, arXiv 2408.00118); null disables it."""
    chunk_tokens: PositiveInt = 4096
    """Tokens whose logits exist at one time during training; it bounds memory and changes no result."""


@config
class ModelConfig:
    """A looped transformer: ``num_prelude_layers``, then ``num_core_layers`` looped T times, then the coda."""

    vocab_size: PositiveInt
    """Entries of the vocabulary, at least those of the data's tokenizer."""
    dim: PositiveInt
    """Width of the residual stream and of the state."""
    max_seq_len: PositiveInt
    """Longest sequence, in tokens."""
    num_prelude_layers: Count
    """Layers before the loop."""
    num_core_layers: PositiveInt
    """Layers of the loop."""
    num_coda_layers: Count
    """Layers after the loop."""
    attention: AttentionConfig
    ffn: DenseConfig
    """Feed-forward layer of prelude and coda."""
    core_ffn: FeedForwardConfig
    """Feed-forward layer of the core, dense or a mixture of experts."""
    injection: InjectionConfig
    loop: LoopConfig = LoopConfig()
    prelude_norm: bool = True
    """Normalise the prelude's output e; without it Parcae's 1.3B run diverged at 150,000 steps."""
    initial_state: Literal["zero", "noise", "embedding"] = "noise"
    """h_0 in training: zeros, noise of the embedding's standard deviation, or e. Evaluation replaces noise by zero."""
    norm_position: Literal["pre", "sandwich"] = "pre"
    """``sandwich`` also normalises what attention and feed-forward add (Huginn)."""
    residual_scale: Literal["none", "inverse_sqrt", "inverse"] = "none"
    """Scale of what the core's blocks add, by the loops N = ``residual_num_loops``: 1, N ** -0.5 or 1 / N. Loops with
    tied weights add up in phase, which 1 / N undoes (arXiv 2606.18524)."""
    residual_num_loops: PositiveInt = 8
    """N of ``residual_scale``."""
    norm_eps: Positive = 1e-6
    """Small number that is added under the root of every norm."""
    max_loops: PositiveInt = 64
    """Rows of every per-loop table; a loop beyond uses the last row."""
    head: HeadConfig
    embedding_std: Positive = 0.02
    """Standard deviation of the initial embedding, and of the noise in h_0."""
    output_scale: NonNegative = 0.0
    """Initial scale of the projections that write to the residual stream, relative to fan_in ** -0.5."""

    def __post_init__(self) -> None:
        if self.core_ffn.kind == "moe" and self.core_ffn.dispatch == "grouped" and self.dim % 8:
            raise ValueError(
                f"dim is {self.dim} with core_ffn.dispatch=grouped; grouped products need rows of 16 bytes, "
                "so make dim a multiple of 8 or set core_ffn.dispatch=naive."
            )
        attention = self.attention
        if attention.kind == "gqa" and attention.head_dim is None and self.dim % (2 * attention.num_heads):
            raise ValueError(
                f"dim is {self.dim} and attention.num_heads is {attention.num_heads}; the heads must divide "
                "dim into equal, even parts, so change one of them or set attention.head_dim."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head's query."""
        match self.attention:
            case GQAConfig(num_heads=num_heads, head_dim=head_dim):
                return head_dim or self.dim // num_heads
            case MLAConfig(nope_head_dim=nope_head_dim, rope_head_dim=rope_head_dim):
                return nope_head_dim + rope_head_dim

    @property
    def cached_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what an attention layer caches of one token: key and value, or a latent and one rotated key."""
        match self.attention:
            case GQAConfig(num_kv_heads=num_kv_heads):
                return ((num_kv_heads, self.head_dim),) * 2
            case MLAConfig(kv_rank=kv_rank, rope_head_dim=rope_head_dim):
                return (kv_rank,), (rope_head_dim,)

    @property
    def core_residual_scale(self) -> float:
        """Factor that ``residual_scale`` stands for."""
        powers = {"none": 0.0, "inverse_sqrt": -0.5, "inverse": -1.0}
        return float(self.residual_num_loops ** powers[self.residual_scale])

    @property
    def is_moe(self) -> bool:
        """Whether the core holds routed experts."""
        return self.core_ffn.kind == "moe"

    @property
    def num_layers(self) -> int:
        """Layers with parameters of their own; a core layer counts once."""
        return self.num_prelude_layers + self.num_core_layers + self.num_coda_layers
