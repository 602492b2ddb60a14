"""Source of a package with two parts inside attention, for the fixture ``install``."""

SOURCE = '''
import torch
from torch import nn

from mythos.config.base import config
from mythos.config.part_spec import PartSpec
from mythos.layers.attention_part import AttentionPart
from mythos.layers.mask import causal_mask
from mythos.loop.part import LoopPart


@config
class NoOptions:
    pass


class Outside(LoopPart):
    def __init__(self, config, model):
        super().__init__()


def shapes_written(model):
    """Shapes of what a layer writes for one token."""
    attention = model.attention
    if attention.kind == "mla":
        return [(attention.kv_rank,), (attention.rope_head_dim,)]
    return [(attention.num_kv_heads, model.head_dim)] * 2


def is_first(inputs, like):
    """Whether a sequence is in its first loop, to be broadcast over a tensor [B, ...]."""
    return (inputs.loop == 0).view(-1, *[1] * (like.dim() - 1))


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))

    def forward(self, value, first):
        return value + self.weight * first


class ValueResidual(AttentionPart):
    """v' = v + g v_first, of latents for MLA; g starts at zero."""

    def __init__(self, config, model):
        super().__init__()
        is_latent = model.attention.kind == "mla"
        self.head, self.written = (1, 0) if is_latent else (2, 1)
        self.shape = shapes_written(model)[self.written]
        self.mix = Mix()

    def start(self, e_BSD):
        return e_BSD.new_zeros(*e_BSD.shape[:2], *self.shape)

    def project(self, x_BSD, heads, inputs):
        mixed = self.mix(heads[self.head], inputs.carry)
        return (*heads[: self.head], mixed, *heads[self.head + 1 :])

    def remember(self, written, inputs):
        value = written[self.written]
        return torch.where(is_first(inputs, value), value, inputs.carry)


class OwnPast(AttentionPart):
    """Each token also attends to its own keys and values of the loop before; the first loop has none."""

    def __init__(self, config, model):
        super().__init__()
        self.shapes = shapes_written(model)

    def start(self, e_BSD):
        return tuple(e_BSD.new_zeros(*e_BSD.shape[:2], *shape) for shape in self.shapes)

    def attend_to(self, memory, mask, inputs):
        past = inputs.carry[0]
        num_new, num_all = past.shape[1], memory[0].shape[1]
        mask = causal_mask(num_new, num_all, past.device) if mask is None else mask
        mask = mask.expand(past.shape[0], 1, num_new, num_all)
        itself = torch.eye(num_new, dtype=torch.bool, device=past.device).expand(past.shape[0], 1, num_new, num_new)
        mask = torch.cat((mask, itself & ~is_first(inputs, itself)), dim=-1)
        return tuple(torch.cat(both, 1) for both in zip(memory, inputs.carry)), mask

    def remember(self, written, inputs):
        return written


def spec(attention_build, with_gate):
    shapes = {"mix.weight": (1,)} if with_gate else {}

    def carry_elements(part, model):
        written = shapes_written(model)
        indices = [0 if model.attention.kind == "mla" else 1] if with_gate else [0, 1]
        return model.num_core_layers * sum(torch.Size(written[index]).numel() for index in indices)

    return PartSpec(
        config=NoOptions,
        build="attention_parts_package:Outside",
        family="loop/attention",
        shapes=lambda part, model: {},
        initial_values={name: "zeros" for name in shapes},
        optimizer_group={name: "other" for name in shapes},
        fp32=(),
        flops=lambda part, model, seq_len: 0,
        saved_activations=lambda part, model, runtime: 0,
        carry_elements=carry_elements,
        cached_elements=lambda part, model, num_loops: 0,
        is_repeatable=False,
        attention_build=attention_build,
        attention_shapes=lambda part, model: shapes,
    )


RESIDUAL = spec("attention_parts_package:ValueResidual", True)
PAST = spec("attention_parts_package:OwnPast", False)
'''
PACKAGE = ("attention_parts_package", "0.1", SOURCE)
ENTRIES = ["residual = attention_parts_package:RESIDUAL", "past = attention_parts_package:PAST"]
