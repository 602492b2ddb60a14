"""Submit a run: ``python launch/submit.py cluster=torchrun|slurm|kubernetes [overrides]``. No torch is imported.

Everything is checked before anything is written or submitted.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # not launch/, whose files would hide packages

from launch import kubernetes, slurm, torchrun
from launch.submission import Submission, check_readable, freeze, holding, next_folder, withdraw, write_submitted
from mythos.config.base import ConfigError
from mythos.config.cluster import KubernetesCluster
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.files import restrict_umask
from mythos.terminal import plain_output
from mythos.train.run_directory import refuse

_KINDS: dict[str, ModuleType] = {"torchrun": torchrun, "slurm": slurm, "kubernetes": kubernetes}


def main(arguments: list[str] | None = None) -> int:
    """Submit a run, or print one line with the reason for refusing it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="launch/submit.py", description="Submit a run of mythos train.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, including cluster=KIND")
    parser.add_argument("--config-dir", type=Path, help="folder to compose from instead of conf/")
    parser.add_argument("--dry-run", action="store_true", help="print the files that would be submitted; write nothing")
    with plain_output():
        parsed = parser.parse_args(arguments)
        restrict_umask()
        try:
            submit(load(parsed.overrides, parsed.config_dir), parsed.overrides, dry_run=parsed.dry_run)
        except ConfigError as error:
            print(f"submit: {error}", file=sys.stderr)
            return 2
    return 0


def submit(config: RunConfig, overrides: list[str], *, dry_run: bool) -> None:
    """Check, freeze, render and submit one run, and print what was done.

    Raises:
        ConfigError: before anything is submitted.
    """
    scheduler = _scheduler(config)
    if scheduler.NEEDS_CODE:  # such a scheduler shares its disks with this machine
        refuse(config)
    config = replace(config, resume=_resume(config))
    submission = _submission(config, overrides)
    scheduler.check(config, submission)
    check_readable(config)
    files: dict[str, str] = scheduler.files(config, submission)
    if dry_run:
        for name, text in files.items():
            print(f"# {submission.folder / name}\n{text}")
        return
    scheduler.check_machine(config)
    with holding(submission.folder.parent):
        submission = _submission(config, overrides)
        scheduler.check_free(config, submission)
        files = scheduler.files(config, submission)
        freeze(config, submission, files, with_code=scheduler.NEEDS_CODE)
        try:
            submitted = scheduler.submit(config, submission)
        except ConfigError:
            withdraw(submission.folder)
            raise
        write_submitted(submission.folder, submitted)
    print(f"frozen:    {submission.folder} (train.yaml{', code' if scheduler.NEEDS_CODE else ''}, {', '.join(files)})")
    print(f"submitted: {submitted.command}")
    if submitted.job is not None:
        print(f"job:       {submitted.job}")
    for title, commands in (("inspect:", submitted.inspect), ("stop:", submitted.stop)):
        for command in commands:
            print(f"{title:<10} {command}")


def _scheduler(config: RunConfig) -> ModuleType:
    kind = config.cluster.kind
    if kind not in _KINDS:
        raise ConfigError(
            f"cluster.kind is {kind}, which mythos train starts by itself; set cluster to one of {', '.join(_KINDS)}."
        )
    return _KINDS[kind]


def _resume(config: RunConfig) -> str:
    """The value of ``resume`` for the job, which may be started many times and resumes each time."""
    if config.resume not in ("never", "auto"):
        raise ConfigError(
            f"resume is {config.resume}, but a job that is started again resumes from its own last checkpoint; set "
            "resume=never or resume=auto, and run.init_from for the weights of another run."
        )
    return "auto"


def _submission(config: RunConfig, overrides: list[str]) -> Submission:
    here = Path.cwd()
    local = config.cluster.local_dir if isinstance(config.cluster, KubernetesCluster) else config.run.dir
    folder = next_folder(here / local / config.run.name / "submissions")
    run = here / config.run.dir / config.run.name
    return Submission(overrides=overrides, run=run, folder=folder, working_directory=here)


if __name__ == "__main__":
    sys.exit(main())
