import pytest
from helpers import run_config

from mythos.config.base import ConfigError
from mythos.config.parallel import shares_weights

TWO = ["optim=adamw", "data.batch_size=8", "data.micro_batch_size=2", "cluster.num_devices=2"]
"""Two ranks that fit."""


def test_two_ranks_share_the_micro_batches() -> None:
    assert run_config(*TWO, "parallel=zero1").num_micro_batches == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parallel=single"], r"parallel.kind is single but the cluster has 1 x 2 devices; set parallel=zero1"),
        (["parallel=zero1", "data.batch_size=6"], r"data.batch_size is 6, but 2 ranks .* make it a multiple of 4"),
        (["parallel=zero1", "run.validation.num_batches=3"], r"num_batches is 3, which 2 ranks .* a multiple of 2"),
        (["parallel=zero1", "optim=muon_adamw"], r"muon_adamw but parallel.zero_stage is 1.*optim=adamw or .*=0"),
        (["parallel=zero1", "parallel.ep_size=3"], r"parallel.ep_size is 3 but there are 2 ranks"),
        (["parallel=zero1", "parallel.ep_size=2", "model=debug-dense"], r"ep_size is 2 but .*kind is dense"),
        (["parallel=zero1", "parallel.ep_size=2", "model.core_ffn.num_experts=3"], r"ep_size is 2 but .* is 3"),
        (["parallel=ddp", "parallel.ep_size=2"], r"zero_stage is 0 with parallel.ep_size=2 and optim.clip_norm=0.5"),
        (["parallel=zero1", "halting=gate", "depth.num_grad_loops=32"], r"halting.train is gate but .*deepspeed"),
        (["parallel=zero1", "depth.per_sequence=true", "balance=sign"], r"per_sequence is true but there are 2 ranks"),
        (["parallel=zero1", "parallel.precision=bf16_weights"], r"parallel.*bf16_weights but zero_stage is 1"),
        (["parallel=ddp", "parallel.offload_optimizer=true"], r"offload_optimizer is true but zero_stage is 0"),
        (
            ["parallel=zero3", "parallel.compile=true", "parallel.precision=bf16"],
            r"compile is true but zero_stage is 3, which gathers and frees weights",
        ),
        (
            ["parallel=zero1", "parallel.compile=true"],
            r"parallel.compile is true with parallel.precision=fp32 and model.core_ffn.dispatch=grouped",
        ),
        (["parallel=zero1", "parallel.extra={stage: 2}"], r"extra.stage: not one of the keys"),
        (["parallel=zero1", "parallel.extra={sub_group_size: true}"], r"sub_group_size is True, .* type int"),
        (["parallel=zero1", "parallel.zero_stage=4"], r"parallel.zero_stage: .*4"),
        (["parallel=zero1", "parallel.ep_size=0"], r"parallel.ep_size: .*0"),
        (["parallel=single", "parallel.ep_size=2", "cluster.num_devices=1"], r"parallel.ep_size: no such key"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config(*TWO, *overrides)


def test_what_fits_is_accepted() -> None:
    run_config(*TWO, "parallel=ddp", "optim=muon_adamw")
    run_config(*TWO, "parallel=ddp", "parallel.ep_size=2", "optim.clip_norm=null")
    run_config(*TWO, "parallel=zero3", "parallel.ep_size=2", "parallel.extra={stage3_prefetch_bucket_size: 1000}")
    run_config(*TWO, "parallel=zero2", "parallel.precision=bf16_weights", "parallel.offload_optimizer=true")


@pytest.mark.parametrize(
    ("layout", "shares"),
    [
        (["parallel=zero2"], False),
        (["parallel=zero2", "parallel.precision=bf16"], True),
        (["parallel=zero2", "parallel.precision=bf16", "parallel.share_weights=false"], False),
        (["parallel=zero2", "parallel.precision=bf16_weights"], True),
        (["parallel=zero3", "parallel.precision=bf16"], False),
    ],
)
def test_loops_share_weights_in_16_bits_where_ranks_hold_them_whole(layout: list[str], shares: bool) -> None:
    assert shares_weights(run_config(*TWO, *layout).parallel) == shares
