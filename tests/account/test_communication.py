"""Bytes of communication, counted by hand."""

from dataclasses import replace

import pytest

from mythos.account.communication import LINK_EFFICIENCY, Links, communication
from mythos.account.parameters import count_parameters
from mythos.account.peak import named_device
from mythos.config.load import load

H100 = named_device("H100")
NUM_EXPERTS = 2 * 4 * 3 * 32 * 32


def traffic(*overrides: str) -> dict[tuple[str, str], float]:
    """Bytes by kind and parameters, with four ranks of two micro-batches, 3 loops and 2 with gradients."""
    ranks = ["model=debug", "optim=adamw", "cluster.num_devices=4", "data.batch_size=16", "data.micro_batch_size=2"]
    run = load([*ranks, "parallel=zero1", *overrides])
    return {(part.kind, part.of): part.bytes for part in communication(run, H100, 3, 2)}


def dense() -> int:
    return count_parameters(load(["model=debug"]).model).total - NUM_EXPERTS


def test_one_process_sends_nothing() -> None:
    assert communication(load(["model=debug"]), H100, 3, 2) == []


def test_stage_1_reduces_gradients_and_gathers_weights_once_a_step() -> None:
    assert traffic() == {
        ("gradients", "dense"): 2 * 4 * dense() * 3 / 4,
        ("gradients", "experts"): 2 * 4 * NUM_EXPERTS * 3 / 4,
        ("weights after the step", "dense"): 4 * dense() * 3 / 4,
        ("weights after the step", "experts"): 4 * NUM_EXPERTS * 3 / 4,
    }


def test_stage_2_reduces_after_every_micro_batch() -> None:
    assert traffic("parallel.zero_stage=2")["gradients", "dense"] == 2 * traffic()["gradients", "dense"]
    scattered = traffic("parallel.zero_stage=2", "parallel.extra={use_multi_rank_bucket_allreduce: false}")
    assert scattered["gradients", "dense"] == traffic()["gradients", "dense"]


def test_stage_3_gathers_before_each_use_unless_weights_stay_gathered() -> None:
    whole = 4 * NUM_EXPERTS * 3 / 4
    assert traffic("parallel.zero_stage=3")["weights in use", "experts"] == 2 * whole
    partitions = ["parallel.zero_stage=3", "parallel.extra={stage3_max_live_parameters: 1000}"]
    assert traffic(*partitions)["weights in use", "experts"] == 2 * (3 + 2) * whole
    assert traffic(*partitions, "parallel.remat=loop")["weights in use", "experts"] == 2 * (3 + 2 + 2) * whole


def test_tokens_or_rows_are_sent_in_every_loop_and_again_in_the_recomputation() -> None:
    tokens = 2 * (2 * 2 * 256)  # layers, tokens of both micro-batches
    there_and_back = tokens * 32 * (4 + 4)  # to the other of two ranks
    sent = traffic("parallel.ep_size=2")
    assert sent["rows forward", "experts"] == 3 * there_and_back
    assert sent["rows backward", "experts"] == 2 * there_and_back
    assert sent["gradients", "experts"] == 2 * 4 * (NUM_EXPERTS // 2) * 1 / 2
    recomputed = traffic("parallel.ep_size=2", "parallel.remat=loop")
    assert recomputed["rows forward", "experts"] == (3 + 2) * there_and_back
    halves = traffic("parallel.ep_size=2", "parallel.precision=bf16")
    assert halves["rows forward", "experts"] == 3 * there_and_back / 2
    rows = traffic("parallel.ep_size=4")  # more ranks than experts per token: three quarters of two rows for each token
    assert rows["rows forward", "experts"] == 3 * 2 * 3 / 4 * there_and_back


def test_experts_sharded_over_all_ranks_need_no_gradient_reduction() -> None:
    assert ("gradients", "experts") not in traffic("parallel.ep_size=4")


@pytest.mark.parametrize(
    ("num_nodes", "num_ranks", "stride", "gigabytes_per_second"),
    [
        (1, 8, 1, 450),  # NVLink
        (2, 16, 1, 400),  # eight adapters of 50 carry the traffic between nodes
        (2, 2, 8, 50),  # the same experts, once in each node
        (2, 4, 4, 100),
        (1, 2, 4, 450),
    ],
)
def test_a_ring_runs_at_the_speed_of_its_slowest_link(num_nodes, num_ranks, stride, gigabytes_per_second) -> None:
    seconds = Links(H100, num_nodes, 8).ring_seconds(1e9, num_ranks, stride)
    assert seconds == pytest.approx(1 / gigabytes_per_second / LINK_EFFICIENCY)


def test_an_exchange_between_nodes_is_bound_by_the_adapters() -> None:
    links = Links(replace(H100, node_gigabytes_per_second=100, network_gigabytes_per_second=10), 2, 4)
    assert links.exchange_seconds(7e9, 4) == pytest.approx(7 / 100 / LINK_EFFICIENCY)
    assert links.exchange_seconds(7e9, 8) == pytest.approx(4 / 10 / LINK_EFFICIENCY)
