"""What is declared about a kind of loop part: once, without torch, and read wherever parts matter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from mythos.config.model import ModelConfig

Shapes = dict[str, tuple[int, ...]]
"""Parameter name, relative to the part that holds it, to shape."""
GroupName = Literal["hidden", "experts", "other"]
"""Parameter groups of the optimisers; see ``optim.groups``."""


class Runtime(Protocol):
    """What runs the operations, as far as it decides what a part saves; see ``account.saved.Runtime``."""

    @property
    def width(self) -> int:
        """Bytes of an element in matrix products."""

    @property
    def state_width(self) -> int:
        """Bytes of an element of the state."""

    @property
    def compiled(self) -> bool:
        """Whether the part's own modules are compiled."""

    @property
    def num_masked_keys(self) -> int:
        """Length of the row of a dense mask, which each attention saves; 0 without one."""

    @property
    def is_cast(self) -> bool:
        """Whether matrix products read casts of an fp32 state."""


@dataclass(frozen=True, kw_only=True)
class OfSequence:
    """What a part adds for each sequence, however many tokens it has."""

    carry_elements: Callable[[Any, "ModelConfig"], int] = lambda config, model: 0
    """Elements that one sequence carries from loop to loop."""
    saved_activations: Callable[[Any, "ModelConfig", Runtime], int] = lambda config, model, runtime: 0
    """Bytes that one sequence saves in one loop."""
    saved_in_attention: Callable[[Any, "ModelConfig", Runtime], int] = lambda config, model, runtime: 0
    """Bytes that one sequence saves in one loop inside the attention of one block, besides ``saved_activations``."""


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """One kind of part. Functions take the part's configuration and the model's.

    ``{}`` and functions that give 0 say that there is nothing; every field has to be stated, so that none is forgotten.
    """

    config: type
    """The configuration of this kind, a ``config.base.config`` class."""
    build: str
    """``module:Class`` of the part, called with its configuration and the model's."""
    family: str
    """Family of the figures' metric names: ``<family>/<figure>``."""
    shapes: Callable[[Any, "ModelConfig"], Shapes]
    """Every parameter."""
    initial_values: Mapping[str, str]
    """Rule of each parameter: a name of ``model.init.RULES``, or ``module:function`` of (tensor, configuration,
    generator)."""
    optimizer_group: Mapping[str, GroupName]
    """Group of each parameter. Tables that start at zero belong to ``other``: Muon divides by their norm."""
    fp32: tuple[str, ...]
    """Parameters that an exported model in 16 bits keeps in fp32."""
    flops: Callable[[Any, "ModelConfig", int], float]
    """Forward FLOPs of one token in one loop, of matrix products and attention, for a sequence length."""
    saved_activations: Callable[[Any, "ModelConfig", Runtime], int]
    """Bytes that one token saves in one loop for the backward."""
    carry_elements: Callable[[Any, "ModelConfig"], int]
    """Elements that one token carries from loop to loop."""
    cached_elements: Callable[[Any, "ModelConfig", int], int]
    """Elements that one token leaves in the decoding cache, for a number of loops."""
    is_repeatable: bool
    """Whether a model may have several parts of this kind."""
    new_carry_elements: Callable[[Any, "ModelConfig"], int] | None = None
    """Those of ``carry_elements`` that one loop makes, where the others are the state or tensors of earlier loops."""
    attention_build: str | None = None
    """``module:Class`` of what the part puts into the attention of each block of the core, called like ``build``; a
    ``layers.attention_part.AttentionPart``. Its parameters are those of ``attention_shapes``."""
    attention_shapes: Callable[[Any, "ModelConfig"], Shapes] = lambda config, model: {}
    """Parameters inside the attention of one block; ``initial_values`` and ``optimizer_group`` name them as well."""
    saved_in_attention: Callable[[Any, "ModelConfig", Runtime], int] = lambda config, model, runtime: 0
    """Bytes that one token saves in one loop inside the attention of one block, besides ``saved_activations``."""
    carry_dtype: Literal["state", "product", "fp32"] = "state"
    """Dtype of the carry: that of the state, that of matrix products such as keys and values, or fp32."""
    of_sequence: OfSequence = OfSequence()
    """What is added for each sequence."""
    router_build: str | None = None
    """``module:Class`` of what the part puts beside the router of each block with experts, likewise; a
    ``layers.router_part.RouterPart``. Its parameters are those of ``router_shapes``, empty for a dense core."""
    router_shapes: Callable[[Any, "ModelConfig"], Shapes] = lambda config, model: {}
    refusal: Callable[[Any, "ModelConfig"], str | None] = lambda config, model: None
    """Why a model cannot have this part: a sentence with both numbers and the key to change; None if it can."""


FIELDS = tuple(PartSpec.__dataclass_fields__)


def load_object(path: str) -> Any:
    """What ``module:name`` stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def nothing(*_: Any) -> int:
    """Of a part that computes, saves, carries or caches nothing."""
    return 0
