"""The machines of a run, and how its processes are started there.

Training reads the common fields only; ``launch/submit.py`` reads the others.
"""

import re
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from mythos.config.base import Count, PositiveInt, config
from mythos.config.paths import FolderPath

Port = Annotated[int, Field(ge=1024, le=65535, strict=True)]
Word = Annotated[str, Field(pattern=r"^[\w.:/@%+,|&!*\[\]()-]+$")]
"""One word without blanks, quotes, dollars or semicolons: it is written into a script."""
Host = Annotated[str, Field(pattern=r"^[\w][\w.:@-]*$")]
"""A name that ssh and a resolver accept; it cannot be mistaken for an option."""
DNSLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[1-9]\d*(Ki|Mi|Gi|Ti)$")]
"""Bytes as Kubernetes writes them, ``64Gi``."""
MountPath = Annotated[str, Field(pattern=r"^/[\w./-]+$")]

_OWN_DIRECTIVES = (
    *("job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "mem", "time", "partition"),
    *("account", "qos", "constraint", "requeue", "no-requeue", "signal", "output", "error", "open-mode", "chdir"),
    *("array", "wrap", "parsable", "test-only", "wait"),
)
"""Options that the template sets itself, or that would change the kind of job."""


@config
class LocalCluster:
    """This machine: ``mythos train`` starts a process for each device."""

    kind: Literal["local"] = "local"
    num_nodes: PositiveInt = 1
    """Machines of the run."""
    num_devices: PositiveInt = 1
    """Devices, and processes, on each node."""
    timeout_seconds: Annotated[PositiveInt, Field(le=10**9)] = 600
    """How long ranks wait for each other before the run ends with an error."""
    num_threads: Annotated[PositiveInt, Field(le=4096)] | None = None
    """CPU threads of torch in each process; null takes ``OMP_NUM_THREADS`` or, for one process without it, as many as
    the machine's load and the container's quota leave free, and the same number when the run resumes there."""

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self.num_nodes * self.num_devices


@config
class TorchrunCluster(LocalCluster):
    """Machines without a scheduler: ``torchrun`` on each, started over ssh or by hand."""

    kind: Literal["torchrun"] = "torchrun"  # type: ignore[assignment]
    hosts: tuple[Host, ...] = ()
    """Host names for ssh, the first node first; they must share a file system. An empty list means this machine, or
    that the nodes are started by hand."""
    master_address: Host | None = None
    """Address at which the other nodes reach the first one; null takes the first of ``hosts``."""
    master_port: Port = 29400
    """Port at which the first node waits for the others."""
    network_interface: Word | None = None
    """Network interface for NCCL and gloo, where a machine has several; null lets them choose."""

    def __post_init__(self) -> None:
        if self.hosts and len(self.hosts) != self.num_nodes:
            raise ValueError(
                f"hosts names {len(self.hosts)} machines but num_nodes is {self.num_nodes}; name one for each node."
            )
        if len(set(self.hosts)) != len(self.hosts):
            raise ValueError(
                f"hosts names a machine twice ({', '.join(self.hosts)}); each node is a different machine."
            )


@config
class SlurmCluster(LocalCluster):
    """A batch job: one task for each device, requeued until the run is finished."""

    kind: Literal["slurm"] = "slurm"  # type: ignore[assignment]
    partition: Word | None = None
    """Partition of the job; null takes the cluster's default."""
    account: Word | None = None
    """Account that the job is charged to; null takes the user's default."""
    qos: Word | None = None
    """Quality of service of the job; null takes the default."""
    constraint: Word | None = None
    """Features that the nodes must have; null asks for none."""
    time_limit: str | None = None
    """``HH:MM:SS`` or ``D-HH:MM:SS`` for each start of the job; null takes the partition's."""
    gpus_per_node: Count | None = None
    """Null requests ``num_devices``; 0 requests none, on CPUs."""
    cpus_per_task: PositiveInt | None = None
    """CPUs of each rank, including its data workers; null takes the cluster's default."""
    memory: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    """Host memory of each node, ``512G``; ``0`` takes all of it."""
    signal_seconds: PositiveInt = 300
    """Seconds before the time limit at which the run is asked to save and stop; a step and a save must fit."""
    max_restarts: Count = 5
    """Consecutive restarts without a new checkpoint after which the job gives up."""
    network_interface: Word | None = None
    """Network interface for NCCL and gloo, where a node has several; null lets them choose."""
    extra_directives: tuple[str, ...] = ()
    """Further options of sbatch, each like ``--reservation=NAME``."""

    def __post_init__(self) -> None:
        if self.gpus_per_node and self.gpus_per_node < self.num_devices:
            raise ValueError(
                f"gpus_per_node is {self.gpus_per_node} but num_devices is {self.num_devices}; ask for at least as "
                "many GPUs as ranks, or for none."
            )
        for directive in self.extra_directives:
            self._check(directive)
        if self.time_limit is None:
            return
        limit = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", self.time_limit)
        if limit is None:
            raise ValueError(f"time_limit is {self.time_limit!r}; write it as HH:MM:SS or D-HH:MM:SS.")
        days, hours, minutes, seconds = (int(number or 0) for number in limit.groups())
        limit_seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if self.signal_seconds >= limit_seconds:
            raise ValueError(
                f"signal_seconds is {self.signal_seconds} but time_limit is {limit_seconds} seconds; the run would be "
                "asked to stop before it starts, so raise the limit or lower signal_seconds."
            )

    def _check(self, directive: str) -> None:
        option = re.fullmatch(r"--([a-z][a-z0-9-]*)(=[\w.:/@%+,|&!*\[\]()=-]+)?", directive)
        if option is None:
            raise ValueError(f"extra_directives holds {directive!r}; write each as --option or --option=value.")
        if option[1] in _OWN_DIRECTIVES:
            raise ValueError(f"extra_directives sets --{option[1]}, which the job's script sets itself; leave it out.")


@config
class KubernetesCluster(LocalCluster):
    """An Indexed Job: one pod for each node, and a headless Service that names the first one."""

    kind: Literal["kubernetes"] = "kubernetes"  # type: ignore[assignment]
    namespace: DNSLabel = "default"
    """Namespace of the Job, which must exist."""
    image: Word | None = None
    """Image built from the Dockerfile, which contains the code; with a tag other than ``latest``, or a digest."""
    gpu_resource: Word | None = "nvidia.com/gpu"
    """Resource of which each pod gets ``num_devices``; null for CPUs."""
    num_cpus: PositiveInt | None = None
    """CPUs of each pod."""
    memory: Quantity | None = None
    """Host memory of each pod."""
    shared_memory: Quantity = "16Gi"
    """Size of ``/dev/shm``, through which NCCL and the data workers exchange data; it counts as memory."""
    extra_resources: dict[Word, str] = field(default_factory=dict)
    """Limits beyond those, such as ``rdma/ib: 1``."""
    volume_claims: dict[DNSLabel, MountPath] = field(default_factory=dict)
    """Mount path by PersistentVolumeClaim; ``run.dir`` and ``data.dir`` must lie in them. Pods share them."""
    node_selector: dict[Word, str] = field(default_factory=dict)
    """Labels that the nodes must have, name to value."""
    tolerations: tuple[Word, ...] = ("nvidia.com/gpu",)
    """Keys of taints that the pods tolerate."""
    secret_name: DNSLabel | None = None
    """A Secret whose keys become environment variables, for tokens of trackers and storage."""
    user_id: PositiveInt = 1000
    """User and group that the pods run as; the volumes must be writable to the group."""
    grace_seconds: PositiveInt = 120
    """How long a pod that is evicted may finish its step and save."""
    time_limit_seconds: PositiveInt | None = None
    """Total time of the job over all restarts; null sets none."""
    ttl_seconds: Count | None = 7 * 24 * 3600
    """How long the finished Job is kept for its logs; null keeps it."""
    max_restarts: Count = 20
    """Failures of each node, beyond pre-emption and lost peers, before the job fails."""
    master_port: Port = 29400
    """Port at which the first pod waits for the others."""
    network_interface: Word | None = None
    """Network interface for NCCL and gloo, where a pod has several; null lets them choose."""
    local_dir: FolderPath = "runs"
    """Folder on the machine that submits; ``<local_dir>/<run.name>/submissions`` keeps what was submitted."""

    def __post_init__(self) -> None:
        if self.image is None:
            return
        _, colon, tag = self.image.rpartition("/")[2].partition(":")
        if "@sha256:" not in self.image and (not colon or tag == "latest"):
            raise ValueError(
                f"image is {self.image}, which may be another image at each restart; name a tag other than latest, "
                "or a digest."
            )


ClusterConfig = Annotated[
    LocalCluster | TorchrunCluster | SlurmCluster | KubernetesCluster, Field(discriminator="kind")
]
