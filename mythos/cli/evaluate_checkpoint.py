"""The checkpoint that ``mythos evaluate`` judges, and the line that names it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mythos.checkpoint.manifest import Manifest
from mythos.config.run import RunConfig
from mythos.eval.restore import choose_device, held_out_data, restore
from mythos.model.mythos import Mythos
from mythos.parallel.threads import take_threads


def newest_checkpoint(run: Path, data: Sequence[Path]) -> tuple[RunConfig, Mythos, Manifest]:
    """Restore a run's newest valid checkpoint on the GPU, if there is one.

    Args:
        data: folders of packed data that take the place of the run's in the configuration; empty for the latter.

    Raises:
        ConfigError: there is no checkpoint, or the data are missing or others.
    """
    take_threads()
    config, model, manifest = restore(run, choose_device())
    return replace(config, data=held_out_data(run, config, manifest, data)), model, manifest


def title(run: Path, config: RunConfig, manifest: Manifest) -> str:
    """The run and the step of its checkpoint, with the last step if the run has not reached it."""
    last = config.run.num_steps
    return f"{run} at step {manifest.step}" + (f" of {last}, unfinished" if manifest.step < last else "")
