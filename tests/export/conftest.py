"""Fixtures: checkpoints of random models as runs write them, and their exports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fill, model_config, run_config, save_checkpoint

from mythos.checkpoint import store
from mythos.checkpoint.fragments import Fragment
from mythos.checkpoint.manifest import Manifest
from mythos.config.base import encode, fingerprint
from mythos.config.halting import FixedHalting, HaltingConfig
from mythos.data.manifest import data_fingerprint
from mythos.export.folder import export
from mythos.model.mythos import Mythos


@pytest.fixture(scope="session")
def save_run(packed: Path):
    """A function that writes the checkpoint of a random model as a run of 4 steps would, and returns the model."""

    def save(run: Path, name: str = "debug", halting: HaltingConfig | None = None, **changes: Any) -> Mythos:
        halting = halting or FixedHalting()
        config = run_config(f"data.dir={packed}", "depth=fixed", "depth.num_loops=3", f"run.name={run.name}")
        config = replace(config, model=model_config(name, **changes), halting=halting)
        model = Mythos(config.model, halting).eval()
        fill(model)
        with torch.no_grad():
            model.core.router_bias.normal_(std=0.1)
        tensors = model.state_dict()
        manifest = Manifest(
            step=4,
            tokens=512,
            next_sample=16,
            config=encode(config),
            fingerprint=fingerprint(config),
            data_fingerprint=data_fingerprint(config.data.directories),
            code_version="0.1.0+abc",
            layout={"kind": "single", "world_size": 1, "ep_size": 1, "zero_stage": 0},
        )
        fragments = [Fragment(key, "weight", 0, value.flatten()) for key, value in tensors.items()]
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        save_checkpoint(run / store.FOLDER, manifest, fragments, shapes, {})
        return model

    return save


@pytest.fixture(scope="session")
def load():
    """A function that loads an exported folder as a user would."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()

    def from_folder(folder: Path, **options: Any) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options)

    return from_folder


@pytest.fixture(scope="session")
def exported(save_run, load, tmp_path_factory: pytest.TempPathFactory):
    """A function that builds and exports a random model, and returns it with the model loaded from the export.

    Tests share the pair of equal arguments, and do not change it.
    """
    pairs: dict[str, tuple[Mythos, Any]] = {}

    def build(name: str = "debug", halting: HaltingConfig | None = None, **changes: Any) -> tuple[Mythos, Any]:
        key = repr((name, halting, sorted(changes.items())))
        if key not in pairs:
            folder = tmp_path_factory.mktemp("exported")
            model = save_run(folder / "run", name, halting, **changes)
            export(folder / "run", folder / "out", None)
            pairs[key] = model, load(folder / "out")
        return pairs[key]

    return build
