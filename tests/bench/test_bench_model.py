import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mythos.account.flops import training_flops
from mythos.bench.model import (
    MODELS,
    BenchOptions,
    Spread,
    Variant,
    arms_of,
    build,
    check_options,
    fit,
    measure,
    measure_apart,
    naive,
    overrides_of,
)
from mythos.bench.parts import PARTS, marking, part_flops, time_parts
from mythos.bench.step import Step, fixed, random_batches
from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.config.depth import FixedDepth
from mythos.config.run import RunConfig
from mythos.types import RouterStats
from tests.helpers import run_config

CPU = torch.device("cpu")
SMALL = ("data.seq_len=32", "data.batch_size=4", "data.micro_batch_size=2", "parallel.device=cpu")
OPTIONS = BenchOptions(num_rounds=3, num_steps=1, num_warmup=1, mean_document=8)


def small(*overrides: str) -> RunConfig:
    return fixed(run_config("depth=fixed", "depth.num_loops=3", "depth.num_grad_loops=2", *SMALL, *overrides))


def router_stats(step: Step) -> RouterStats:
    stats = step.module.training_step(step.batches[0], 0)["observation"].router_stats
    assert stats is not None
    return stats


def test_benchmark_names_expand_to_model_files_and_overrides() -> None:
    assert overrides_of(["model=debug"]) == ["model=debug"]
    for name in MODELS:
        assert f"d{arms_of([name], [], False, False, None)['training'].config.model.dim}" in name
    config = arms_of(["moe-d2048", "depth.num_loops=6"], [], False, False, None)["training"].config
    assert (config.model.dim, config.model.core_ffn.kind, config.data.seq_len) == (2048, "moe", 2048)
    assert (config.depth.max_loops, config.depth.grad_loops) == (6, 4)
    with pytest.raises(ConfigError, match="'moe-d4' is no benchmark; choose from dense-d1024, moe-d2048, moe-d1024"):
        overrides_of(["moe-d4"])


def test_a_drawn_depth_is_timed_at_its_mean() -> None:
    depth = fixed(run_config("depth=poisson", "depth.mean=6.2")).depth
    assert depth == FixedDepth(num_loops=6, num_grad_loops=4)


def test_documents_restart_positions() -> None:
    for batch in random_batches(small(), 8, CPU):
        assert batch.document_ids_BS is not None
        starts = batch.positions_BS == 0
        assert starts[:, 0].all()
        assert torch.equal(starts.cumsum(1) - 1, batch.document_ids_BS)
        assert (batch.positions_BS.diff(dim=1)[~starts[:, 1:]] == 1).all()
        assert batch.num_targets == 4 * 32
    assert random_batches(small(), 0, CPU)[0].document_ids_BS is None
    assert random_batches(small("data.mask_documents=false"), 8, CPU)[0].document_ids_BS is None


def test_accumulated_micro_batches_give_the_update_of_the_whole_batch() -> None:
    two, one = (Step(small(f"data.micro_batch_size={size}"), CPU, 0) for size in (2, 4))
    first, second = two.batches
    (whole,) = one.batches
    names = ("tokens_BS", "targets_BS", "sample_ids_B")
    joined = {name: torch.cat((getattr(first, name), getattr(second, name))) for name in names}
    one.batches = [whole._replace(**joined)]
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    two(), one()
    assert any(not torch.equal(now, old) for now, old in zip(one.model.parameters(), before, strict=True))
    for accumulated, at_once in zip(two.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(accumulated, at_once, rtol=1e-3, atol=1e-5)
        assert accumulated.grad is None


def test_the_module_and_its_batches_are_on_the_device() -> None:
    step = Step(small(), torch.device("meta"), 8)
    assert step.module.device.type == "meta"
    tensors = [
        *step.model.parameters(),
        *step.model.buffers(),
        *(part for part in step.batches[0] if isinstance(part, torch.Tensor)),
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_balanced_routing_is_balanced_and_natural_is_not() -> None:
    config = small()
    natural, balanced = (
        router_stats(build(Variant(config, is_balanced), OPTIONS)).counts_E for is_balanced in (False, True)
    )
    assert natural.sum() == balanced.sum()
    assert (balanced == balanced[0, 0, 0]).all()
    assert not (natural == natural[0, 0, 0]).all()


def test_variants_measured_apart_are_compared_with_the_first() -> None:
    variants = {"two": Variant(small()), "one": Variant(small("data.batch_size=2"))}
    two, one = measure_apart(variants, OPTIONS._replace(with_parts=False))
    assert (two.name, one.name) == ("two", "one")
    assert two.ratio == (1, 1, 1)
    half = 0.5  # of the tokens
    assert one.ratio.median_ms == pytest.approx(half * two.time.median_ms / one.time.median_ms)
    assert one.ratio.low_ms == pytest.approx(half * two.time.low_ms / one.time.high_ms)
    assert one.ratio.low_ms <= one.ratio.median_ms <= one.ratio.high_ms
    with pytest.raises(ConfigError, match="--apart frees each variant"):
        check_options(OPTIONS, [2, 4], is_apart=True)


def test_naive_computes_the_same_loss() -> None:
    config = small("model.head.chunk_tokens=16")
    slow = naive(config)
    config = replace(config, data=replace(config.data, batch_size=2))
    assert slow.data == config.data  # one micro-batch
    assert slow.model.core_ffn.dispatch == "naive"
    assert slow.model.head.chunk_tokens == 64
    assert not naive(small("parallel.compile=true", "parallel.precision=bf16")).parallel.compile
    losses = [Step(each, CPU, 8)() for each in (config, slow)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_parts_are_all_timed_and_their_flops_sum_to_the_steps() -> None:
    config = small("parallel.remat=loop")
    step = Step(config, CPU, 8)
    parts = time_parts(step, num_steps=1)
    assert list(parts) == list(PARTS)
    assert all(milliseconds > 0 for milliseconds in parts.values())
    assert not step.model.core._forward_hooks
    flops = part_flops(config, 3, 2)
    assert sum(flops.values()) == pytest.approx(
        training_flops(config.model, 32, 3, 2).total * config.data.batch_size * 32
    )


@pytest.mark.parametrize("remat", ["none", "block", "loop"])
def test_marks_are_set_in_the_order_of_forward_and_backward(remat: str) -> None:
    marks: list[str] = []
    step = Step(small(f"parallel.remat={remat}"), CPU, 8)
    with marking(step.model, marks.append):
        step(marks.append)
    forward = ["prelude and coda", "core without gradient", "core with gradient", "prelude and coda", "head and loss"]
    backward = ["head and loss", "prelude and coda", "core with gradient", "prelude and coda"]
    assert marks == 2 * (forward + backward) + ["optimiser"]


def test_measurements_are_derived_from_the_times() -> None:
    config = small()
    arms = measure({"training": build(Variant(config), OPTIONS), "again": build(Variant(config), OPTIONS)}, OPTIONS)
    for arm in arms:
        assert arm.tokens_per_second == pytest.approx(4 * 32 / arm.time.median_ms * 1e3)
        flops = training_flops(config.model, 32, 3, 2).total
        assert arm.tflops == pytest.approx(arm.tokens_per_second * flops / 1e12)
        assert arm.ratio.low_ms <= arm.ratio.median_ms <= arm.ratio.high_ms
        assert (arm.mfu, arm.peak_bytes, arm.num_recompiled) == (None, None, 0)
        assert arm.resident_bytes > 2 * 4 * sum(p.numel() for p in build(Variant(config), OPTIONS).model.parameters())
    assert arms[0].ratio == Spread(1, 1, 1)


def test_ratios_compare_times_per_token() -> None:
    variants = {"whole": Variant(small()), "half": Variant(small("data.batch_size=2"))}
    whole, half = measure(
        {name: build(each, OPTIONS) for name, each in variants.items()}, OPTIONS._replace(num_rounds=1)
    )
    assert half.ratio.median_ms == pytest.approx(half.tokens_per_second / whole.tokens_per_second)


def test_the_line_is_fitted_to_the_medians() -> None:
    line = fit({loops: Spread(5 + 2.0 * loops, 0, 0) for loops in (2, 4, 8)})
    assert (line.loop_ms, line.outer_ms) == (pytest.approx(2), pytest.approx(5))
    assert line.largest_deviation < 1e-9
    bent = fit({1: Spread(1, 0, 0), 2: Spread(4, 0, 0), 3: Spread(1, 0, 0)})
    assert (bent.loop_ms, bent.outer_ms) == (pytest.approx(0, abs=1e-9), pytest.approx(2))
    assert bent.largest_deviation == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "loops", "message"),
    [
        (OPTIONS._replace(num_rounds=0), [], "--rounds is 0"),
        (OPTIONS._replace(mean_document=-1), [], "--documents is -1"),
        (OPTIONS, [4], "--num-loops is 4; a line needs two"),
        (OPTIONS, [4, 0], "--num-loops is 4 0"),
    ],
)
def test_options_that_measure_nothing_are_refused(options: BenchOptions, loops: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(options, loops)


def test_variants_that_do_not_apply_are_refused() -> None:
    with pytest.raises(ConfigError, match="is dense, which routes nothing"):
        arms_of(["model=debug-dense"], [], False, True, None)
    with pytest.raises(ConfigError, match="--compare: 'A' is not understood"):
        arms_of(["model=debug"], ["A"], False, False, None)
    with pytest.raises(ConfigError, match="--compare names all variants"):
        arms_of(["model=debug"], ["A=optim=adamw"], True, False, None)
    with pytest.raises(ConfigError, match=r"parallel\.kind is deepspeed on 1 ranks"):
        fixed(run_config("parallel=zero1", "optim=adamw"))


def test_compared_variants_add_to_the_common_overrides() -> None:
    arms = arms_of(["model=debug"], ["A=", "B=optim=adamw data.seq_len=64"], False, False, None)
    assert [arm.config.optim.kind for arm in arms.values()] == ["muon_adamw", "adamw"]
    assert arms["B"].config.data.seq_len == 64


def test_the_command_prints_tables_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.json"
    words = ["model=debug", *SMALL, "depth.mean=2", "--rounds", "2", "--warmup", "1", "--naive", "--json", str(file)]
    assert main(["bench", "model", *words, "--num-loops", "1", "2", "--num-drawn-steps", "4"]) == 0
    written = json.loads(file.read_text())
    assert [arm["name"] for arm in written["arms"]] == ["training", "naive"]
    assert written["arms"][1]["config"]["model"]["core_ffn"]["dispatch"] == "naive"
    assert list(written["line"]["time"]) == ["1", "2"]
    assert written["draws"]["num_steps"] == 4
    assert written["draws"]["num_recompiled"] == 0
    printed = capsys.readouterr().out
    assert f"{written['arms'][0]['time']['median_ms']:.2f}" in printed
    assert "4 steps of drawn depth" in printed
    assert main(["bench", "model", "d16"]) == 2


@pytest.mark.slow
def test_balanced_and_natural_arms_do_not_share_compiled_code() -> None:
    config = small("parallel.compile=true", "parallel.precision=bf16")
    arms = {"training": build(Variant(config), OPTIONS), "balanced": build(Variant(config, True), OPTIONS)}
    for arm in measure(arms, OPTIONS):
        assert arm.num_graphs >= 2
        assert arm.num_recompiled == 0
    counts = router_stats(arms["balanced"]).counts_E
    assert (counts == counts[0, 0, 0]).all()


@pytest.mark.gpu
@pytest.mark.parametrize("halting", ["fixed", "act", "ponder"])
def test_a_step_does_not_synchronise_with_the_device(halting: str) -> None:
    """A synchronisation drains the queue, and the device then waits for the host."""
    names = ("model=560m-a210m", "model.dim=128", "model.attention.num_heads=1", "model.attention.num_kv_heads=1")
    shape = ("model.core_ffn.hidden_dim=64", "data.seq_len=64", "data.batch_size=4", "data.micro_batch_size=2")
    depth = ("depth=fixed", "depth.num_loops=3", "depth.num_grad_loops=3")
    config = run_config(*names, *shape, *depth, f"halting={halting}", "parallel.precision=bf16", "optim=adamw")
    step = Step(config, torch.device("cuda"), mean_document=16)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
