from helpers import run_config

from mythos.parallel.mesh import describe, expert_ranks

FOUR = ["optim=adamw", "data.batch_size=32", "data.micro_batch_size=2", "run.validation.num_batches=8"]


def test_expert_ranks_are_consecutive() -> None:
    assert expert_ranks(6, 2) == [[0, 1], [2, 3], [4, 5]]
    assert expert_ranks(4, 1) == [[0], [1], [2], [3]]


def test_the_mesh_is_described() -> None:
    config = run_config(*FOUR, "parallel=zero2", "parallel.ep_size=2", "cluster.num_devices=4")
    assert describe(config).splitlines() == [
        "4 ranks (1 nodes x 4), ZeRO 2, 4 micro-batches a step on each",
        "experts sharded over 2 ranks each: 0-1, 2-3",
    ]


def test_experts_that_span_nodes_cause_a_warning() -> None:
    config = run_config(*FOUR, "parallel=zero1", "parallel.ep_size=2", "cluster.num_nodes=2", "cluster.num_devices=1")
    assert "warning: expert ranks span nodes, because parallel.ep_size 2 does not divide the 1 devices" in describe(
        config
    )
