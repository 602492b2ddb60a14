"""Exported models compute the same results as the models that they were exported from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import model_config, relative_error
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.config.halting import ActHalting, PonderHalting
from mythos.config.injection import AdditiveInjection, DiagonalInjection, LinearInjection
from mythos.config.model import HeadConfig
from mythos.config.parts import PARTS, LoopConfig
from mythos.model.generate import generate
from mythos.model.mythos import Mythos

TOKENS = torch.randint(512, (3, 12), generator=torch.Generator().manual_seed(1))
MOE = model_config("debug").core_ffn
KINDS: dict[str, dict[str, Any]] = {
    "gqa-moe": {},
    "gqa-dense": {"name": "debug-dense"},
    "mla-moe": {"name": "debug-mla"},
    "mla-dense": {"name": "debug-mla", "core_ffn": model_config("debug-dense").core_ffn},
    "act": {"halting": ActHalting(threshold=0.2)},
    "ponder": {"halting": PonderHalting()},
    "untied-capped-sandwich": {"head": HeadConfig(tied=False, soft_cap=2.0), "norm_position": "sandwich"},
    "linear-parallel": {"injection": LinearInjection(update_rule="parallel")},
    "additive-from-embedding": {"injection": AdditiveInjection(), "initial_state": "embedding"},
    "zoh-parallel": {
        "injection": DiagonalInjection(update_rule="parallel", discretization="zoh"),
        "prelude_norm": False,
    },
    "softmax-naive-scaled": {
        "core_ffn": replace(MOE, score="softmax", dispatch="naive", num_shared=0, weight_scale=2.0),
        "residual_scale": "inverse_sqrt",
    },
    **{kind: {"loop": LoopConfig(parts=(spec.config(),))} for kind, spec in PARTS.items()},
    **{f"{kind}-mla": {"name": "debug-mla", "loop": LoopConfig(parts=(PARTS[kind].config(),))} for kind in PARTS},
}


def decode(model: Mythos, tokens: Tensor, num_loops: int) -> Tensor:
    return model.decode(tokens, model.new_cache(num_loops, tokens.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_greedy_text_equal_those_of_the_model(kind: str, exported) -> None:
    model, loaded = exported(**KINDS[kind])
    with torch.no_grad():
        for num_loops in (1, 3, 20):
            expected = decode(model, TOKENS, num_loops)
            assert relative_error(loaded(TOKENS, num_loops=num_loops).logits, expected) < 1e-5
        assert torch.equal(loaded(TOKENS).logits, loaded(TOKENS, num_loops=3).logits)
    expected_text = generate(model, TOKENS[:, :5], 8, 3, temperature=0, top_k=None, seed=0).tokens_BS
    text = loaded.generate(TOKENS[:, :5], attention_mask=torch.ones(3, 5), max_new_tokens=8, eos_token_id=None)
    assert torch.equal(text[:, 5:], expected_text)


IN_ATTENTION = LoopConfig(parts=tuple(spec.config() for spec in PARTS.values() if spec.attention_build is not None))


@pytest.mark.parametrize(
    ("name", "policy", "loop"),
    [
        ("debug", "mean", LoopConfig()),
        ("debug", "mod-2", LoopConfig()),
        ("debug-mla", "last", LoopConfig()),
        *(
            pytest.param("debug", policy, IN_ATTENTION, marks=pytest.mark.slow, id=f"parts-{policy}")
            for policy in ("all", "mean", "mod-2")
        ),
        pytest.param("debug-mla", "last", IN_ATTENTION, marks=pytest.mark.slow, id="parts-mla-last"),
    ],
)
@pytest.mark.parametrize("rule", [None, ExitRule("relative_change", 0.4), ExitRule("output_divergence", 0.02)])
def test_padded_prompts_exit_rules_and_shared_caches_give_the_text_of_the_model(
    name: str, policy: str, loop: LoopConfig, rule: ExitRule | None, exported
) -> None:
    model, loaded = exported(name, loop=loop)
    is_real = torch.arange(7) >= 7 - torch.tensor([4, 7, 1])[:, None]
    prompts = TOKENS[:, :7] * is_real
    expected = generate(model, prompts, 8, 5, 0, None, 0, rule=rule, cache_policy=policy, is_real_BS=is_real).tokens_BS
    options = {} if rule is None else {"exit_rule": rule.kind, "exit_threshold": rule.threshold}
    text = loaded.generate(
        prompts,
        attention_mask=is_real.long(),
        max_new_tokens=8,
        num_loops=5,
        cache_policy=policy,
        eos_token_id=None,
        **options,
    )
    assert torch.equal(text[:, 7:], expected)


def test_exits_are_reported_and_need_no_cache(exported) -> None:
    model, loaded = exported(halting=PonderHalting())
    with torch.no_grad():
        output = loaded(TOKENS, num_loops=6, exit_rule="quantile", exit_threshold=0.3)
        expected = model.decode_until(TOKENS, model.new_cache(6, 12), ExitRule("quantile", 0.3))
    assert torch.equal(output.num_loops, expected.num_loops_BS)
    assert output.num_loops.unique().numel() > 1
    assert output.past_key_values is None
    assert relative_error(output.logits, expected.logits_BSV) < 1e-6


def test_a_call_with_a_cache_continues_the_call_before(exported) -> None:
    _, loaded = exported()
    with torch.no_grad():
        first = loaded(TOKENS[:, :8], use_cache=True, num_loops=4)
        rest = loaded(TOKENS[:, 8:], past_key_values=first.past_key_values)
        assert relative_error(rest.logits, loaded(TOKENS, num_loops=4).logits[:, 8:]) < 1e-5
        with pytest.raises(ValueError, match=r"num_loops: 2 was given, but the cache was created with 4"):
            loaded(TOKENS, past_key_values=first.past_key_values, num_loops=2)


@pytest.mark.parametrize("loop", [LoopConfig(), pytest.param(IN_ATTENTION, marks=pytest.mark.slow)], ids=["", "parts"])
def test_beam_search_with_a_cache_equals_beam_search_without(loop: LoopConfig, exported) -> None:
    _, loaded = exported(loop=loop)
    options = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": None}
    options["attention_mask"] = torch.ones(3, 5)
    text = loaded.generate(TOKENS[:, :5], **options)
    assert torch.equal(text, loaded.generate(TOKENS[:, :5], use_cache=False, **options))
    greedy = loaded.generate(TOKENS[:, :5], **options | {"num_beams": 1, "num_return_sequences": 1})
    assert not torch.equal(text[::2], greedy)


def test_gradients_equal_those_of_the_model(exported) -> None:
    model, loaded = exported("debug-mla")
    loss = loaded(TOKENS, labels=TOKENS).loss
    loss.backward()
    logits = model.decode_until(TOKENS, model.new_cache(3, 12), None).logits_BSV
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())
    expected.backward()
    assert abs(loss - expected) < 1e-6
    exported_parameters = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        assert relative_error(exported_parameters[f"model.{name}"].grad, parameter.grad) < 1e-5, name


def test_16_bit_weights_run_as_under_autocast(save_run, load, tmp_path) -> None:
    from mythos.export.folder import export

    model = save_run(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", None, torch.bfloat16)
    loaded = load(tmp_path / "out")
    in_fp32 = {name for name, one in loaded.state_dict().items() if one.dtype == torch.float32}
    assert in_fp32 == {f"model.core.{name}" for name in ("router_bias", "injection.log_rate", "injection.dt_bias")}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"model.{name}" not in in_fp32:
                parameter.copy_(parameter.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            expected = decode(model, TOKENS, 3)
        assert relative_error(loaded(TOKENS).logits, expected) < 0.02
        assert relative_error(loaded(TOKENS).logits, decode(model, TOKENS, 3)) < 0.1
