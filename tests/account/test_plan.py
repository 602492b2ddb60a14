"""Compare estimates of whole runs with peaks measured on GPUs, and with sums by hand."""

from dataclasses import replace

import pytest

from mythos.account.activations import activation_bytes
from mythos.account.estimate import CONTEXT_BYTES, MARGIN, SLACK, max_grad_loops, memory, runtime
from mythos.account.flops import training_flops
from mythos.account.parameters import count_parameters
from mythos.account.peak import named_device
from mythos.account.plan import plan
from mythos.account.speed import DENSE_EFFICIENCY, default_efficiency
from mythos.config.load import load
from mythos.config.run import RunConfig

GIB, MIB = 2**30, 2**20
WITHIN = 0.10
H200 = named_device("H200")
SHAPE = ["optim=adamw", "data.seq_len=2048", "data.micro_batch_size=8", "data.batch_size=8", "parallel.precision=bf16"]

STEPS = [
    ("560m-a210m", "loop", False, False, {4: 13_511, 8: 13_771, 16: 14_291}),
    ("560m-a210m", "loop", False, True, {4: 13_382, 8: 13_386, 16: 13_394}),
]
"""docs/memory.md: model, remat, compiled, offloaded, and MiB at the peak of a forward and backward by loops, on one
H200. The experts ran as PyTorch operations, and nothing was compiled."""

RUNS = [
    (["data.batch_size=64"], 47.8),
    (["parallel=zero1", "cluster.num_devices=2"], 52.7),
    (["parallel=zero1", "cluster.num_devices=2", "parallel.ep_size=2"], 54.9),
]
"""docs/distributed.md: layout, and GiB at the peak of each H200 in training, fused kernels and compiled parts."""
RUN = [
    *("model=560m-a210m", "optim=adamw", "data.seq_len=2048", "data.micro_batch_size=16", "data.batch_size=128"),
    "model.head.chunk_tokens=65536",
    *("depth=fixed", "depth.num_loops=8", "depth.num_grad_loops=4"),
]


@pytest.mark.parametrize(("model", "remat", "compiled", "offloaded", "peaks"), STEPS)
def test_the_peak_of_a_step_is_within_a_tenth_of_the_measured_one(model, remat, compiled, offloaded, peaks) -> None:
    overrides = [f"parallel.remat={remat}", f"parallel.compile={compiled}", f"parallel.offload_states={offloaded}"]
    run = load([f"model={model}", *SHAPE, *(word.lower() for word in overrides)])
    saved = activation_bytes(
        run.model, run.parallel, 8, 2048, mask_documents=False, runtime=runtime(run, has_fused_experts=False)
    )
    for num_loops, peak in peaks.items():
        assert saved.peak(num_loops) / MIB == pytest.approx(peak, rel=WITHIN)


@pytest.mark.parametrize(("layout", "peak"), RUNS)
def test_the_peak_of_training_is_within_a_tenth_of_the_measured_one(layout: list[str], peak: float) -> None:
    run = load([*RUN, *layout, "parallel.precision=bf16", "parallel.compile=true"])
    assert memory(run, has_fused_experts=True).allocated / GIB == pytest.approx(peak, rel=WITHIN)


def engine(*overrides: str) -> RunConfig:
    """The small mixture of experts on four ranks."""
    ranks = ["model=debug", "optim=adamw", "cluster.num_devices=4", "data.batch_size=16", "data.micro_batch_size=2"]
    return load([*ranks, "parallel=zero1", *overrides])


NUM_EXPERTS = 2 * 4 * 3 * 32 * 32
"""Elements of the routed experts of ``debug``: two layers, four experts, three matrices."""


def test_each_stage_shards_its_part_of_the_state() -> None:
    total = count_parameters(engine().model).total
    slice_ = -(-(total - NUM_EXPERTS) // 4) + NUM_EXPERTS // 4
    needed = {stage: memory(engine(f"parallel.zero_stage={stage}"), True) for stage in (0, 1, 2, 3)}
    parts = {stage: (part.weights, part.gradients, part.master_weights, part.moments) for stage, part in needed.items()}
    assert parts == {
        0: (4 * total, 4 * total, 0, 8 * total),
        1: (4 * total, 4 * total, 4 * slice_, 8 * slice_),
        2: (4 * total, 4 * slice_, 4 * slice_, 8 * slice_),
        3: (4 * slice_, 4 * slice_, 4 * slice_, 8 * slice_),
    }
    assert needed[3].gathered == 4 * total
    assert needed[1].buckets == 2 * 4 * 500_000_000
    assert memory(engine("parallel.extra={reduce_bucket_size: 1000}"), True).buckets == 8000


def test_shared_gradient_accumulators_are_not_sharded_under_zero_2() -> None:
    total = count_parameters(engine().model).total
    words = ("parallel.zero_stage=2", "parallel.precision=bf16")
    shared, alone = (memory(engine(*words, f"parallel.share_weights={share}"), True) for share in ("true", "false"))
    assert shared.buckets - alone.buckets == 4 * total
    assert shared.gradients == alone.gradients
    halves = memory(engine("parallel.zero_stage=2", "parallel.precision=bf16_weights"), True)
    assert halves.buckets == alone.buckets // 2  # bf16 gradients have no shared accumulators


def test_shared_weight_copies_stay_for_the_whole_step() -> None:
    words = [*RUN, "parallel.precision=bf16", "parallel.remat=loop"]
    runs = [load([*words, f"parallel.share_weights={share}"]) for share in ("true", "false")]
    shared, alone = (
        activation_bytes(run.model, run.parallel, 8, 2048, mask_documents=False, runtime=runtime(run, False))
        for run in runs
    )
    assert shared.prelude - alone.prelude == alone.recomputed - shared.recomputed > 0
    assert shared.peak(4) >= alone.peak(4)


def test_experts_are_sharded_over_their_group_and_sliced_over_their_replicas() -> None:
    total = count_parameters(engine().model).total
    dense = total - NUM_EXPERTS
    needed = memory(engine("parallel.ep_size=2"), True)
    assert needed.weights == 4 * (dense + NUM_EXPERTS // 2)
    assert needed.moments == 8 * (-(-dense // 4) + NUM_EXPERTS // 2 // 2)


def test_weights_in_bf16_are_half_as_many_bytes_and_offloading_moves_the_optimizer() -> None:
    whole = memory(engine("parallel.zero_stage=2"), True)
    halves = memory(engine("parallel.zero_stage=2", "parallel.precision=bf16_weights"), True)
    assert (halves.weights, halves.moments) == (whole.weights // 2, whole.moments)
    moved = memory(engine("parallel.zero_stage=2", "parallel.offload_optimizer=true"), True)
    assert moved.master_weights == moved.moments == 0
    assert moved.host == whole.master_weights + whole.moments + whole.gradients


def test_a_state_in_bf16_halves_the_bytes_that_a_recomputed_loop_saves() -> None:
    words = [*RUN, "parallel.precision=bf16", "parallel.remat=loop"]
    runs = [load([*words, f"parallel.state_precision={precision}"]) for precision in ("fp32", "bf16")]
    whole, half = (
        activation_bytes(run.model, run.parallel, 8, 2048, mask_documents=False, runtime=runtime(run, True)).per_loop
        for run in runs
    )
    assert whole - half == 2 * 1024 * 8 * 2048


def test_a_device_needs_the_tensors_a_margin_and_the_context() -> None:
    needed = memory(load(["model=debug", "optim=adamw"]), True)
    backward = needed.standing + needed.activations
    assert needed.allocated == backward
    assert needed.total == int(backward * (1 + MARGIN)) + CONTEXT_BYTES + int(SLACK * backward)


def test_muon_needs_more_during_its_step_and_less_between() -> None:
    adamw, muon = (memory(load(["model=560m-a210m", f"optim={kind}"]), True) for kind in ("adamw", "muon_adamw"))
    assert muon.moments < adamw.moments
    assert (adamw.optimizer_step, muon.optimizer_step) == (0, 0.75 * GIB)
    short = replace(muon, activations=0)
    assert short.allocated == muon.standing + muon.optimizer_step


def test_fused_experts_save_two_products_of_each_row_and_one_weight_copy_a_step() -> None:
    run = load([*RUN, "parallel.precision=bf16", "parallel.compile=true"])
    core, num_tokens = run.model.core_ffn, 8 * 2048
    plain, fused = (
        activation_bytes(run.model, run.parallel, 8, 2048, mask_documents=False, runtime=runtime(run, has))
        for has in (False, True)
    )
    weight_copies = 6 * core.num_experts * core.hidden_dim * run.model.dim
    rows_plain = core.num_active * (4 * run.model.dim + 6 * core.hidden_dim + 32)
    rows_fused = core.num_active * (4 * core.hidden_dim + 16)
    assert plain.per_loop - fused.per_loop == 4 * (weight_copies + num_tokens * (rows_plain - rows_fused))
    assert fused.prelude - plain.prelude == 4 * weight_copies


def test_the_largest_number_of_grad_loops_of_the_run_counts() -> None:
    assert max_grad_loops(load(["depth.mean=6"])) == 3
    assert max_grad_loops(load(["depth.mean=6", "depth.growth=[{step: 10, mean: 11}]"])) == 6
    assert max_grad_loops(load(["depth=fixed", "depth.num_loops=5"])) == 5


def test_speed_is_tokens_over_the_sum_of_the_parts() -> None:
    run = load([*RUN, "parallel.precision=bf16"])
    estimate = plan(run, "H200", efficiency=0.5)
    num_tokens = 128 * 2048
    flops = training_flops(run.model, 2048, 8, 4).total * num_tokens
    assert estimate.seconds.forward_backward == pytest.approx(flops / (0.5 * 989e12))
    assert estimate.seconds.optimizer == pytest.approx(28 * count_parameters(run.model).total / 4.8e12)
    assert estimate.traffic == ()
    assert estimate.mfu == pytest.approx(flops / estimate.seconds.total / 989e12)
    assert estimate.days(1e12) == pytest.approx(1e12 / (num_tokens / estimate.seconds.total) / 86_400)


def test_a_mixture_slows_only_its_own_share_of_the_flops() -> None:
    assert default_efficiency(load(["model=370m", "depth=fixed", "depth.num_loops=8"]), H200) == DENSE_EFFICIENCY
    run = load([*RUN, "parallel.precision=bf16"])
    total = training_flops(run.model, 2048, 8, 4).total
    mixture = 4 * 2 * (9 * 3 * 1024 * 512 + 64 * 1024) * (8 + 2 * 4)
    for device, rate in ((H200, 0.7), (named_device("A100"), 0.36)):
        seconds = (total - mixture) / DENSE_EFFICIENCY + mixture / (DENSE_EFFICIENCY * rate)
        assert default_efficiency(run, device) == pytest.approx(total / seconds)


def test_gradient_communication_overlaps_only_with_the_backward_of_the_prelude() -> None:
    two = ["parallel=zero1", "cluster.num_devices=2", "cluster.num_nodes=2", "parallel.precision=bf16"]
    estimate = {
        overlaps: plan(load([*RUN, *two, f"parallel.overlap_communication={overlaps}"]), H200, 0.5)
        for overlaps in ("true", "false")
    }
    exposed, overlapped = (estimate[overlaps].seconds.exposed_communication for overlaps in ("false", "true"))
    assert exposed == pytest.approx(sum(part.seconds for part in estimate["true"].traffic))
    block = 2 * (4 * 1024**2 + 3 * 1024 * 2752) + 2 * 2048 * 1024
    assert exposed - overlapped == pytest.approx(16 * 2048 * 2 * 4 * block / (0.5 * 989e12))


def test_recomputation_costs_a_forward_of_the_loops_with_gradients_and_does_not_count_for_mfu() -> None:
    none, loop = (plan(load([*RUN, f"parallel.remat={remat}"]), H200, 0.5) for remat in ("none", "loop"))
    assert loop.seconds.forward_backward > none.seconds.forward_backward
    assert loop.mfu / none.mfu == pytest.approx(none.seconds.total / loop.seconds.total)


def test_the_orthogonalisation_of_muon_is_within_a_third_of_the_measured_time() -> None:
    """docs/optimizer.md: 84 matrices of width 1024 and 12 stacks of 64 experts take 35 ms on an H200."""
    run = load(["model=560m-a210m", "model.num_core_layers=4", "optim=muon_adamw"])
    seconds = plan(run, H200).seconds.optimizer
    assert 0.035 * 2 / 3 < seconds < 0.035 * 4 / 3


def test_memory_gb_overrides_the_memory_of_the_device() -> None:
    run = load([*RUN, "parallel.memory_gb=20"])
    assert plan(run, H200).memory_bytes == 20_000_000_000
    assert not plan(run, H200).fits
    assert plan(load(RUN), H200).memory_bytes == 139 * GIB
