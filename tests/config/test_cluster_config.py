"""Kinds of clusters: common fields, and the refusals of each."""

import pytest

from mythos.config.base import ConfigError, decode, encode
from mythos.config.cluster import ClusterConfig, KubernetesCluster, SlurmCluster, TorchrunCluster
from mythos.config.load import load

KINDS = ("local", "torchrun", "slurm", "kubernetes")
RANKS = ["model=debug", "optim=adamw", "parallel=zero1", "data.micro_batch_size=2", "data.batch_size=16"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_what_training_reads(kind: str) -> None:
    cluster = load([*RANKS, f"cluster={kind}", "cluster.num_nodes=2", "cluster.num_devices=4"]).cluster
    assert (cluster.kind, cluster.world_size, cluster.timeout_seconds, cluster.num_threads) == (kind, 8, 600, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_the_run_directory(kind: str) -> None:
    config = load([f"cluster={kind}"])
    assert decode(type(config), encode(config)) == config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["cluster=slurm", "cluster.partiton=a"], "cluster.partiton: no such key; did you mean 'partition'?"),
        (["cluster=local", "cluster.hosts=[a]"], "cluster.hosts: no such key; "),
        (["cluster=slurm", "cluster.time_limit=4h"], "cluster: time_limit is '4h'; write it as HH:MM:SS"),
        (
            ["cluster=slurm", "cluster.time_limit=00:05:00"],
            "cluster: signal_seconds is 300 but time_limit is 300 seconds; ",
        ),
        (["cluster=slurm", "cluster.gpus_per_node=1", "cluster.num_devices=2"], "cluster: gpus_per_node is 1 but num"),
        (["cluster=slurm", "cluster.extra_directives=['--nodes=4']"], "cluster: extra_directives sets --nodes, which"),
        (["cluster=slurm", "cluster.extra_directives=['a; rm b']"], "cluster: extra_directives holds 'a; rm b'; "),
        (["cluster=slurm", "cluster.partition='a b'"], "cluster.partition: string should match pattern"),
        (["cluster=torchrun", "cluster.hosts=[a,b]"], "cluster: hosts names 2 machines but num_nodes is 1; "),
        (["cluster=torchrun", "cluster.hosts=['-oProxy']"], "cluster.hosts.0: string should match pattern"),
        (["cluster=torchrun", "cluster.master_port=80"], "cluster.master_port: input should be greater than or equal"),
        (["cluster=kubernetes", "cluster.image=a/mythos"], "cluster: image is a/mythos, which may be another image"),
        (["cluster=kubernetes", "cluster.image=h:5000/mythos:latest"], "cluster: image is h:5000/mythos:latest, which"),
    ],
)
def test_a_mistake_gets_one_sentence(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_machine_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="hosts names a machine twice"):
        TorchrunCluster(num_nodes=2, hosts=("a", "a"))


def test_valid_values_are_accepted() -> None:
    slurm = SlurmCluster(time_limit="1-00:00:00", extra_directives=("--reservation=maintenance", "--exclusive"))
    assert slurm.signal_seconds == 300
    pinned = KubernetesCluster(image="host:5000/mythos@sha256:" + "0" * 64)
    assert decode(ClusterConfig, encode(pinned)) == pinned
