"""The whole run: one field for each configuration group, and the checks that span groups."""

from mythos.config.base import Count, PositiveInt, PositiveInts, config
from mythos.config.cluster import ClusterConfig
from mythos.config.data import DataConfig
from mythos.config.depth import DepthConfig
from mythos.config.halting import FixedHalting, HaltingConfig
from mythos.config.model import ModelConfig, MoEConfig
from mythos.config.objective import ObjectiveConfig
from mythos.config.optim import OptimConfig
from mythos.config.parallel import ParallelConfig
from mythos.config.schedule import ScheduleConfig
from mythos.config.tracking import TrackingConfig


@config
class ValidationConfig:
    """How often and how deep the held-out text is looked at."""

    every: PositiveInt
    """Optimiser steps between looks; the last step is always followed by one."""
    num_batches: PositiveInt
    """Micro-batches in one look, the same ones every time."""
    depths: PositiveInts
    """Loop counts at which the loss is read, all from one forward."""


@config
class CheckpointConfig:
    """How often the run is saved and how many saves are kept."""

    every: PositiveInt
    """Optimiser steps between checkpoints; the last step is always saved."""
    keep_last: PositiveInt = 2


@config
class RunSettings:
    """Name, place and length of the run."""

    name: str
    dir: str = "runs"
    """Folder that holds the run's own folder ``<dir>/<name>``."""
    seed: Count = 0
    """Decides initial values, depths, noise and data order, each through a stream of its own."""
    num_steps: PositiveInt
    validation: ValidationConfig
    checkpoint: CheckpointConfig
    init_from: str | None = None
    """Directory of a run whose newest checkpoint gives the initial weights; a halting gate may be new."""


@config
class RunConfig:
    """Everything that is said about a run; frozen, and written into each of its checkpoints."""

    model: ModelConfig
    depth: DepthConfig
    halting: HaltingConfig
    objective: ObjectiveConfig
    data: DataConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    parallel: ParallelConfig
    tracking: TrackingConfig
    cluster: ClusterConfig
    run: RunSettings
    resume: str = "never"
    """``never``, ``auto`` (the newest checkpoint that verifies, if any), or a checkpoint's directory."""

    def __post_init__(self) -> None:
        if self.data.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"data.seq_len is {self.data.seq_len} but model.max_seq_len is {self.model.max_seq_len}; "
                "shorten the sequences or raise the model's limit."
            )
        if self.schedule.num_warmup_steps > self.run.num_steps:
            raise ValueError(
                f"schedule.num_warmup_steps is {self.schedule.num_warmup_steps} but run.num_steps is "
                f"{self.run.num_steps}; the warm-up must end before the run does."
            )

        profile = self.tracking.profile
        if profile is not None and profile.start + profile.num_steps - 1 > self.run.num_steps:
            raise ValueError(
                f"tracking.profile.start is {profile.start} and tracking.profile.num_steps is {profile.num_steps}, "
                f"which ends after the run.num_steps={self.run.num_steps} of the run; profile earlier steps or fewer."
            )

        longest = self.depth.max_loops
        if not isinstance(self.halting, FixedHalting) and self.depth.grad_loops < longest:
            raise ValueError(
                f"halting.kind is {self.halting.kind} but depth.num_grad_loops is {self.depth.grad_loops} of up to "
                f"{longest} passes; an exit learns through every pass, so set depth.num_grad_loops={longest}."
            )
        if self.depth.per_sequence:
            self._check_depth_of_each_sequence()
        core = self.model.core_ffn
        if (
            self.parallel.compile
            and self.parallel.precision == "fp32"
            and isinstance(core, MoEConfig)
            and core.dispatch == "grouped"
        ):
            raise ValueError(
                "parallel.compile is true with parallel.precision=fp32 and model.core_ffn.dispatch=grouped; torch "
                "compiles grouped products in bf16 only, so set parallel.precision=bf16 or parallel.compile=false."
            )

    def _check_depth_of_each_sequence(self) -> None:
        """Refuse what needs all sequences of a batch to run the same passes."""
        if not isinstance(self.halting, FixedHalting):
            raise ValueError(
                f"depth.per_sequence is true but halting.kind is {self.halting.kind}, which weighs the same passes for "
                "all sequences; set halting=fixed or depth.per_sequence=false."
            )
        if self.objective.supervise_loops:
            raise ValueError(
                f"depth.per_sequence is true but objective.supervise_loops is {self.objective.supervise_loops:g}, "
                "which reads the same passes of all sequences; set the weight to 0 or depth.per_sequence=false."
            )
        if self.parallel.compile:
            raise ValueError(
                "depth.per_sequence is true but parallel.compile is true, which serves one number of rows where each "
                "pass has its own; set parallel.compile=false or depth.per_sequence=false."
            )

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches that one device accumulates in an optimiser step."""
        return self.data.batch_size // self.data.micro_batch_size
