"""Build the loop parts of a model's configuration."""

from mythos.config.model import ModelConfig
from mythos.config.part_spec import load_object
from mythos.config.parts import parts_of
from mythos.layers.attention_part import AttentionPart
from mythos.layers.router_part import RouterPart
from mythos.loop.part import LoopPart


def build_parts(model: ModelConfig) -> list[LoopPart]:
    """Return the parts around the injection and the blocks, the outermost first."""
    return [load_object(part.spec.build)(part.config, model) for part in parts_of(model)[1:]]


def build_attention_parts(model: ModelConfig) -> list[AttentionPart | None]:
    """Return their attention parts for one block, None for a part without one."""
    builds = [(part.spec.attention_build, part.config) for part in parts_of(model)[1:]]
    return [None if build is None else load_object(build)(config, model) for build, config in builds]


def build_router_parts(model: ModelConfig) -> list[RouterPart]:
    """Return their parts beside the router of one block of experts."""
    builds = [(part.spec.router_build, part.config) for part in parts_of(model)]
    return [load_object(build)(config, model) for build, config in builds if build is not None]
