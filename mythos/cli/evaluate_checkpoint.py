"""The checkpoint that ``mythos evaluate`` judges, and the line that names it."""

from pathlib import Path

from mythos.checkpoint.manifest import Manifest
from mythos.config.run import RunConfig
from mythos.eval.restore import check_data, choose_device, restore
from mythos.model.mythos import Mythos


def newest_checkpoint(run: Path) -> tuple[RunConfig, Mythos, Manifest]:
    """Restore a run's newest valid checkpoint on the GPU, if there is one.

    Raises:
        ConfigError: there is no checkpoint, or its data have changed.
    """
    config, model, manifest = restore(run, choose_device())
    check_data(config, manifest)
    return config, model, manifest


def title(run: Path, config: RunConfig, manifest: Manifest) -> str:
    """The run and the step of its checkpoint, with the last step if the run has not reached it."""
    last = config.run.num_steps
    return f"{run} at step {manifest.step}" + (f" of {last}, unfinished" if manifest.step < last else "")
