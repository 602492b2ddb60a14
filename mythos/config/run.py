"""Configuration of a run: one field for each group, and the checks that span groups."""

from mythos.config.balance import BalanceConfig
from mythos.config.base import Count, NonNegative, Positive, PositiveInt, PositiveInts, config
from mythos.config.cluster import ClusterConfig
from mythos.config.data import DataConfig
from mythos.config.depth import DepthConfig
from mythos.config.guard import GuardConfig
from mythos.config.halting import FixedHalting, HaltingConfig, PonderHalting
from mythos.config.layout import check_layout
from mythos.config.model import ModelConfig
from mythos.config.objective import ObjectiveConfig
from mythos.config.optim import OptimConfig
from mythos.config.parallel import ParallelConfig
from mythos.config.paths import FolderName, FolderPath
from mythos.config.schedule import ScheduleConfig
from mythos.config.survival import SurvivalSettings
from mythos.config.telemetry import TelemetryConfig
from mythos.config.tracking import TrackingConfig


@config
class ValidationConfig:
    """How often, and with how many loops, the held-out loss is computed."""

    every: PositiveInt
    """Optimiser steps between validations; the last step is always followed by one."""
    num_batches: PositiveInt
    """Micro-batches of a validation, the same ones every time."""
    num_loops: PositiveInts
    """Loop counts at which the loss is computed, all in one forward."""


@config
class CheckpointConfig:
    """How often a checkpoint is saved and how many are kept."""

    every: PositiveInt
    """Optimiser steps between checkpoints; the last step is always saved."""
    keep_last: PositiveInt = 2
    """Number of latest checkpoints that are kept; ``keep_every`` and ``keep_best`` keep more."""
    keep_every: PositiveInt | None = None
    """Keep every checkpoint whose step is a multiple of this; null keeps none for that reason."""
    keep_best: Count = 0
    """Number of checkpoints with the lowest validation loss that are kept."""
    asynchronous: bool = True
    """Write in a background thread while training continues; false waits for each save."""
    copy_to: FolderPath | None = None
    """Folder or fsspec URL (``s3://bucket/prefix``); finished checkpoints are copied to ``<copy_to>/<run.name>``."""
    copy_timeout_seconds: Positive = 1200.0
    """Seconds after which a copy is given up; training never waits for one, and the end of the run no longer."""
    copy_stop_seconds: NonNegative = 60.0
    """Seconds for which a run that was asked to stop, or is out of time, waits for its last copy."""

    def __post_init__(self) -> None:
        if self.keep_every is not None and self.keep_every % self.every:
            raise ValueError(
                f"keep_every is {self.keep_every} but every is {self.every}; only steps that are saved can be kept, so "
                f"set keep_every to a multiple of {self.every}."
            )
        if self.copy_to is not None and not self.copy_to.strip("/"):
            raise ValueError(
                f"copy_to is {self.copy_to!r}; give a folder or a URL such as s3://bucket/prefix, or null."
            )


@config
class RunSettings(SurvivalSettings):
    """Name, folder and length of the run, and how it reacts to failures."""

    name: FolderName
    """Name of the run, and of its folder."""
    dir: FolderPath = "runs"
    """Folder that holds the run's own folder ``<dir>/<name>``."""
    seed: Count = 0
    """Seed of initial values, numbers of loops, noise and data order, each through a stream of its own."""
    num_steps: PositiveInt
    """Length of the run in optimiser steps."""
    validation: ValidationConfig
    checkpoint: CheckpointConfig
    guard: GuardConfig = GuardConfig()
    init_from: FolderPath | None = None
    """Directory of a run whose latest checkpoint gives the initial weights; a halting gate may be new."""


@config
class RunConfig:
    """Complete configuration of a run; frozen, and written into each of its checkpoints."""

    model: ModelConfig
    depth: DepthConfig
    halting: HaltingConfig
    objective: ObjectiveConfig
    data: DataConfig
    optim: OptimConfig
    balance: BalanceConfig
    schedule: ScheduleConfig
    parallel: ParallelConfig
    telemetry: TelemetryConfig
    tracking: TrackingConfig
    cluster: ClusterConfig
    run: RunSettings
    resume: FolderPath = "never"
    """``never``, ``auto`` (the latest valid checkpoint, if any), or a checkpoint's directory."""

    def __post_init__(self) -> None:
        if self.data.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"data.seq_len is {self.data.seq_len} but model.max_seq_len is {self.model.max_seq_len}; "
                "shorten the sequences or raise the model's limit."
            )
        if (self.schedule.num_warmup_steps or 0) > self.run.num_steps:
            raise ValueError(
                f"schedule.num_warmup_steps is {self.schedule.num_warmup_steps} but run.num_steps is "
                f"{self.run.num_steps}; the warm-up must end before the run does, so shorten it or set it to null."
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
                f"{longest} loops; an exit learns through every loop, so set depth.num_grad_loops={longest}."
            )
        if self.depth.per_sequence:
            self._check_per_sequence()
        if self.objective.balance_loss and not self.model.is_moe:
            raise ValueError(
                f"objective.balance_loss is {self.objective.balance_loss:g} but model.core_ffn.kind is dense, which "
                "has 0 experts to balance; set the weight to 0 or choose a model with a mixture of experts."
            )
        if self.objective.jacobian and self.parallel.state_precision == "bf16":
            raise ValueError(
                f"objective.jacobian is {self.objective.jacobian:g} but parallel.state_precision is bf16, in which "
                "the small changes that it measures are lost; set parallel.state_precision=fp32 or the weight to 0."
            )
        self._check_ranks()
        check_layout(self.parallel, self.cluster, self.model, self.optim, self.halting)

    def _check_ranks(self) -> None:
        """Refuse a number of ranks among which the batch cannot be divided."""
        world_size, micro_batch_size = self.cluster.world_size, self.data.micro_batch_size
        portion = world_size * micro_batch_size
        if self.data.batch_size % portion:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}, but {world_size} ranks with a data.micro_batch_size of "
                f"{micro_batch_size} take {portion} sequences at a time; make it a multiple of {portion}."
            )
        if self.run.validation.num_batches % world_size:
            raise ValueError(
                f"run.validation.num_batches is {self.run.validation.num_batches}, which {world_size} ranks cannot "
                f"share evenly; make it a multiple of {world_size}."
            )
        if self.run.max_restarts and self.cluster.num_nodes > 1:
            raise ValueError(
                f"run.max_restarts is {self.run.max_restarts} but cluster.num_nodes is {self.cluster.num_nodes}; a "
                "launcher restarts the ranks of one machine, so set run.max_restarts=0 and leave it to the scheduler."
            )
        if self.depth.per_sequence and world_size > 1:
            raise ValueError(
                f"depth.per_sequence is true but there are {world_size} ranks, which must run the same loops; set "
                "depth.per_sequence=false."
            )

    def _check_per_sequence(self) -> None:
        """Refuse what needs all sequences of a batch to run the same loops."""
        if not isinstance(self.halting, FixedHalting):
            raise ValueError(
                f"depth.per_sequence is true but halting.kind is {self.halting.kind}, which weighs the same loops for "
                "all sequences; set halting=fixed or depth.per_sequence=false."
            )
        if self.objective.supervise_loops:
            raise ValueError(
                f"depth.per_sequence is true but objective.supervise_loops is {self.objective.supervise_loops:g}, "
                "which reads the same loops of all sequences; set the weight to 0 or depth.per_sequence=false."
            )
        if self.model.is_moe and self.balance.kind == "quantile":
            raise ValueError(
                "depth.per_sequence is true but balance.kind is quantile, which counts margins of one loop at a time; "
                "set balance=sign or depth.per_sequence=false."
            )
        if self.parallel.compile:
            raise ValueError(
                "depth.per_sequence is true but parallel.compile is true, which serves one number of rows where each "
                "loop has its own; set parallel.compile=false or depth.per_sequence=false."
            )

    @property
    def mean_loops(self) -> int:
        """The mean depth of training as a number of loops, the default of the trained model."""
        return max(1, round(self.depth.mean))

    def num_exits(self, num_loops: float) -> float:
        """Exits whose loss a training step of ``num_loops`` loops reads: one, unless a loss asks for more."""
        num_exits: float = 1
        match self.halting:
            case PonderHalting(train="gate"):
                num_exits = num_loops
            case PonderHalting(num_exits=num_drawn):
                num_exits = num_drawn
        if self.objective.supervise_loops:
            num_exits = max(num_exits, self.objective.num_supervised_loops)
        return min(num_exits, num_loops)

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches that each rank accumulates in an optimiser step."""
        return self.data.batch_size // (self.data.micro_batch_size * self.cluster.world_size)
