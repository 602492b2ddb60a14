"""A SLURM job: one task for each rank, so that SLURM signals the ranks and gets their exit statuses directly.

Under torchrun it would not: torchrun ends with 1 for any failure of a rank, and kills ranks 30 seconds after a signal.
"""

import shlex
import sys

from launch import commands
from launch.render import network, render
from launch.submission import Submission, Submitted, check_code_path, last_job
from mythos.config.base import ConfigError
from mythos.config.cluster import SlurmCluster
from mythos.config.run import RunConfig
from mythos.train.run_directory import check_unlocked

NEEDS_CODE = True
_REFUSED = frozenset(" '\"\\%#")
"""Characters that sbatch replaces, or at which it ends a value."""


def check(config: RunConfig, submission: Submission) -> None:
    """Check the configuration.

    Raises:
        ConfigError: a name or folder is not valid in a directive of sbatch, or the folder cannot hold the code.
    """
    values = {
        "run.name": config.run.name,
        "run.dir": str(submission.folder),
        "the working directory": str(submission.working_directory),
    }
    for path, value in values.items():
        if any(character in _REFUSED or not character.isprintable() for character in value):
            raise ConfigError(
                f"{path} is {value!r}, which is not valid in a directive of sbatch; leave out blanks, quotes, "
                "backslashes, %, #."
            )
    check_code_path(submission)


def check_machine(config: RunConfig) -> None:
    """Check this machine.

    Raises:
        ConfigError: SLURM's commands are missing.
    """
    for command in ("sbatch", "squeue"):
        commands.need(command, "slurm")


def check_free(config: RunConfig, submission: Submission) -> None:
    """Check that the run is free.

    Raises:
        ConfigError: the run is being trained, or is in the queue.
    """
    check_unlocked(config)
    last = last_job(submission.folder.parent)
    if last is None:
        return
    done = commands.run(["squeue", "--noheader", "--format=%T", f"--jobs={last['job']}"])
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ConfigError(f"squeue failed ({' '.join(done.stderr.split())[:300]}); nothing was submitted.")
    if state := done.stdout.strip():
        raise ConfigError(
            f"run.name: {submission.run} belongs to SLURM job {last['job']} ({state.lower()}); wait, end it with "
            f"scancel {last['job']}, or choose another run.name."
        )


def files(config: RunConfig, submission: Submission) -> dict[str, str]:
    """Render the batch script."""
    cluster = config.cluster
    assert isinstance(cluster, SlurmCluster)
    script = render(
        "slurm.sh",
        name=config.run.name,
        num_nodes=cluster.num_nodes,
        num_devices=cluster.num_devices,
        directives="\n".join(f"#SBATCH {directive}" for directive in _directives(cluster)),
        signal_seconds=cluster.signal_seconds,
        log=str(submission.folder / "slurm-%j.log"),
        working_directory=str(submission.working_directory),
        submission=shlex.quote(str(submission.folder)),
        run=shlex.quote(str(submission.run)),
        python=shlex.quote(sys.executable),
        network=network(cluster.network_interface),
        num_threads=_num_threads(cluster),
        max_restarts=cluster.max_restarts,
    )
    return {"job.sh": script}


def submit(config: RunConfig, submission: Submission) -> Submitted:
    """Submit the script with sbatch."""
    command = ["sbatch", "--parsable", str(submission.folder / "job.sh")]
    job = commands.output(command).strip().partition(";")[0]
    log = submission.folder / f"slurm-{job}.log"
    return Submitted(
        command=shlex.join(command),
        job=job,
        inspect=(f"squeue --jobs={job}", f"tail -F {shlex.quote(str(log))}"),
        stop=(
            f"scancel {job}",
            f"scancel --batch --signal=USR1 {job}   # saves first, and resumes when the job is started again",
        ),
    )


def _directives(cluster: SlurmCluster) -> list[str]:
    """The configured settings as options of sbatch."""
    gpus = cluster.num_devices if cluster.gpus_per_node is None else cluster.gpus_per_node
    options = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.time_limit,
        "gpus-per-node": gpus or None,
        "cpus-per-task": cluster.cpus_per_task,
        "mem": cluster.memory,
    }
    named = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*named, *cluster.extra_directives]


def _num_threads(cluster: SlurmCluster) -> str:
    """Threads of each rank: as configured, or the number of its CPUs."""
    return str(cluster.num_threads) if cluster.num_threads is not None else "${SLURM_CPUS_PER_TASK:-1}"
