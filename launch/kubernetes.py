"""An Indexed Job with a headless Service: no operator and no custom resource is needed.

The code is that of the image. The pods share the volumes; this machine may not have access to them, so the pods check
data and run directory.
"""

import json
import re
import shlex
from pathlib import PurePosixPath

from launch import commands
from launch.render import network, render
from launch.submission import Submission, Submitted, configuration, describe
from mythos.config.base import ConfigError
from mythos.config.cluster import KubernetesCluster
from mythos.config.run import RunConfig

NEEDS_CODE = False
_MAX_NAME = 52
"""Maximum length of a Job's name: pods append an index, and a host name has at most 63 characters."""


def check(config: RunConfig, submission: Submission) -> None:
    """Check the configuration.

    Raises:
        ConfigError: no image, a name that Kubernetes does not accept, or a path outside of the volumes.
    """
    cluster = config.cluster
    assert isinstance(cluster, KubernetesCluster)
    if cluster.image is None:
        raise ConfigError("cluster.image is null; set it to the image built from the Dockerfile, registry/name:tag.")
    if len(config.run.name) > _MAX_NAME or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", config.run.name):
        raise ConfigError(
            f"run.name is {config.run.name!r}, but a Job's name has at most {_MAX_NAME} lower-case letters, digits "
            "and hyphens and begins with a letter; choose such a name."
        )
    directories = {"run.dir": [config.run.dir], "data.dir": [str(path) for path in config.data.directories]}
    for key, paths in directories.items():
        for path in paths:
            _check_mounted(key, path, cluster.volume_claims)


def check_machine(config: RunConfig) -> None:
    """Check this machine.

    Raises:
        ConfigError: kubectl is missing.
    """
    commands.need("kubectl", "kubernetes")


def check_free(config: RunConfig, submission: Submission) -> None:
    """Check that the name is free.

    Raises:
        ConfigError: there is a Job of this name, running or finished, or there are leftovers of one.
    """
    cluster, name = config.cluster, config.run.name
    assert isinstance(cluster, KubernetesCluster)
    where = ["--namespace", cluster.namespace]
    command = ["kubectl", "get", "job,service,configmap", name, *where, "--ignore-not-found", "--output=name"]
    if existing := commands.output(command).split():
        raise ConfigError(
            f"run.name: namespace {cluster.namespace} already has {', '.join(existing)}; wait for it and remove it "
            f"with {shlex.join(_delete(config))}, or choose another run.name."
        )


def files(config: RunConfig, submission: Submission) -> dict[str, str]:
    """Render the manifests, in one file."""
    cluster, name = config.cluster, config.run.name
    assert isinstance(cluster, KubernetesCluster)
    node_script = render(
        "node.sh",
        num_threads=cluster.num_threads or max(1, (cluster.num_cpus or 1) // cluster.num_devices),
        master_address=f"{name}-0.{name}",
        master_port=cluster.master_port,
        network=network(cluster.network_interface),
        run=shlex.quote(str(submission.run)),
        number=submission.folder.name,
    )
    manifests = render(
        "kubernetes.yaml",
        name=json.dumps(name),
        namespace=json.dumps(cluster.namespace),
        node_script=node_script.rstrip("\n"),
        configuration=configuration(config).rstrip("\n"),
        submission=json.dumps(describe(submission.overrides), indent=1),
        num_nodes=cluster.num_nodes,
        backoff_limit=cluster.max_restarts * cluster.num_nodes,
        limits=_limits(cluster),
        grace_seconds=cluster.grace_seconds,
        user_id=cluster.user_id,
        placement=_placement(cluster),
        image=json.dumps(cluster.image),
        secret=_secret(cluster),
        limits_of_a_pod=json.dumps(_resources(cluster)),
        mounts=_mounts(cluster),
        volumes=_volumes(cluster, name),
    )
    return {"job.yaml": manifests}


def submit(config: RunConfig, submission: Submission) -> Submitted:
    """Submit the manifests with kubectl."""
    cluster, name = config.cluster, config.run.name
    assert isinstance(cluster, KubernetesCluster)
    command = ["kubectl", "apply", "--filename", str(submission.folder / "job.yaml")]
    commands.output(command)
    where = f"--namespace {cluster.namespace}"
    return Submitted(
        command=shlex.join(command),
        job=name,
        inspect=(
            f"kubectl get pods {where} --selector batch.kubernetes.io/job-name={name}",
            f"kubectl logs {where} --follow "
            f"--selector batch.kubernetes.io/job-name={name},batch.kubernetes.io/job-completion-index=0",
        ),
        stop=(shlex.join(_delete(config)) + "   # the ranks save first",),
    )


def _delete(config: RunConfig) -> list[str]:
    cluster, name = config.cluster, config.run.name
    assert isinstance(cluster, KubernetesCluster)
    return ["kubectl", "delete", "job,service,configmap", name, "--namespace", cluster.namespace]


def _check_mounted(key: str, path: str, claims: dict[str, str]) -> None:
    pure = PurePosixPath(path)
    if ".." in pure.parts or not any(pure.is_relative_to(mount) for mount in claims.values()):
        mounts = ", ".join(claims.values()) or "none"
        raise ConfigError(
            f"{key}: {path} is in no volume of the pods (cluster.volume_claims mounts {mounts}); mount one there, "
            "or choose a path in one."
        )


def _limits(cluster: KubernetesCluster) -> str:
    """Time limits of the Job."""
    limits = {
        "activeDeadlineSeconds": cluster.time_limit_seconds,
        "ttlSecondsAfterFinished": cluster.ttl_seconds,
    }
    return "\n".join(f"{name}: {value}" for name, value in limits.items() if value is not None)


def _placement(cluster: KubernetesCluster) -> str:
    """Rules for the machines on which the pods run."""
    tolerations = [{"key": key, "operator": "Exists"} for key in cluster.tolerations]
    rules = {"nodeSelector": cluster.node_selector, "tolerations": tolerations}
    return "\n".join(f"{name}: {json.dumps(rule)}" for name, rule in rules.items() if rule)


def _secret(cluster: KubernetesCluster) -> str:
    """Reference to the Secret whose keys become environment variables; tokens are never in these files."""
    source = [{"secretRef": {"name": cluster.secret_name}}]
    return "" if cluster.secret_name is None else f"envFrom: {json.dumps(source)}"


def _resources(cluster: KubernetesCluster) -> dict[str, str]:
    """Limits of a pod, which are also its requests."""
    resources = dict(cluster.extra_resources)
    if cluster.gpu_resource is not None:
        resources[cluster.gpu_resource] = str(cluster.num_devices)
    if cluster.num_cpus is not None:
        resources["cpu"] = str(cluster.num_cpus)
    if cluster.memory is not None:
        resources["memory"] = cluster.memory
    return resources


def _mounts(cluster: KubernetesCluster) -> str:
    mounts = {"submission": "/submission", "shm": "/dev/shm", "tmp": "/tmp"}
    mounts |= {f"claim-{index}": path for index, path in enumerate(cluster.volume_claims.values())}
    return "\n".join(f"- {json.dumps({'name': name, 'mountPath': path})}" for name, path in mounts.items())


def _volumes(cluster: KubernetesCluster, name: str) -> str:
    volumes = [
        {"name": "submission", "configMap": {"name": name}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}},
        {"name": "tmp", "emptyDir": {}},
    ]
    volumes += [
        {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim}}
        for index, claim in enumerate(cluster.volume_claims)
    ]
    return "\n".join(f"- {json.dumps(volume)}" for volume in volumes)
