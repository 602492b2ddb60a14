"""A package with a loop part, as another project would write and install it."""

from pathlib import Path

SPEC = '''
from mythos.config.base import NonNegative, config
from mythos.config.part_spec import PartSpec


@config
class TideConfig:
    """m' = decay m + F(h); h' = F(h) + W m'."""

    decay: NonNegative = 0.5


SPEC = PartSpec(
    config=TideConfig,
    build="tide_parts.part:Tide",
    family="loop/tide",
    shapes=lambda part, model: {"write.weight": (model.dim, model.dim)},
    initial_values={"write.weight": "tide_parts.part:initialize"},
    optimizer_group={"write.weight": "other"},
    fp32=(),
    flops=lambda part, model, seq_len: 2 * model.dim**2,
    saved_activations=lambda part, model, runtime: runtime.width * model.dim,
    carry_elements=lambda part, model: model.dim,
    cached_elements=lambda part, model, num_loops: 0,
    is_repeatable=False,
)
'''
PART = """
import torch
from torch import nn

from mythos.loop.part import LoopPart


class Tide(LoopPart):
    def __init__(self, config, model):
        super().__init__()
        self.decay = config.decay
        self.write = nn.Linear(model.dim, model.dim, bias=False)

    def start(self, h_BSD, e_BSD):
        return torch.zeros_like(e_BSD)

    def forward(self, h_BSD, carry, inputs, rest):
        y_BSD = rest(h_BSD)
        memory_BSD = self.decay * carry + y_BSD
        return y_BSD + self.write(memory_BSD).to(y_BSD.dtype), memory_BSD

    def figures(self):
        return {"write": self.write.weight.float().square().mean().sqrt()}


def initialize(weight, config, generator):
    weight.normal_(std=0.02, generator=generator)
"""
ENTRY_POINTS = """[mythos.loop_parts]
tide = tide_parts:SPEC
storm = storm_parts:SPEC
"""
TIDE = "{kind: foreign, name: tide, options: {decay: 0.25}}"
"""The part in the notation of an override."""


def write_package(root: Path, version: str = "1.2") -> Path:
    """Install the package into a folder for ``PYTHONPATH``; a second entry point's module raises when imported."""
    info = root / f"tide_parts-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tide_parts\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (root / "tide_parts").mkdir()
    (root / "tide_parts" / "__init__.py").write_text(SPEC)
    (root / "tide_parts" / "part.py").write_text(PART)
    (root / "storm_parts.py").write_text("raise RuntimeError('imported without being chosen')\n")
    return root
