import base64
import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from mythos.config.load import load
from mythos.report.trace_arrays import TokenTrace
from mythos.report.trace_page import Origin, facts, final_prediction_loop, render

NUM_LOOPS, NUM_TOKENS, NUM_LAYERS, NUM_EXPERTS = 3, 7, 2, 4


def made(seed: int = 0, **changes: object) -> TokenTrace:
    """A trace of random numbers."""
    rng = np.random.default_rng(seed)
    plane = (NUM_LOOPS, NUM_TOKENS)
    weights = np.tril(rng.random((NUM_LOOPS, 1, 2, NUM_TOKENS, NUM_TOKENS)))
    next_prob = rng.random(plane)
    next_prob[:, -1] = np.nan
    word_ids = np.array([2, 5, 7, 11, 13, 17])
    trace = TokenTrace(
        token_S=rng.choice(word_ids, NUM_TOKENS),
        state_norm_TS=rng.random(plane),
        relative_change_TS=rng.random(plane),
        top_token_TSR=np.stack([rng.permutation(word_ids)[:5] for _ in range(21)]).reshape(*plane, 5),
        top_prob_TSR=-np.sort(-rng.random((*plane, 5))),
        next_prob_TS=next_prob,
        entropy_TS=rng.random(plane),
        halting_TS=rng.dirichlet(np.ones(NUM_LOOPS), NUM_TOKENS).T,
        expert_TLSK=rng.integers(0, NUM_EXPERTS, (NUM_LOOPS, NUM_LAYERS, NUM_TOKENS, 2)),
        attention_TCHSS=weights / weights.sum(-1, keepdims=True),
        layer_C=np.array([1]),
        head_H=np.array([0, 1]),
        word_id_W=word_ids,
        word_W=np.array([" the", " king", "</script>", "\n", "é", " $name"]),
    )
    return trace._replace(**changes)


def page(trace: TokenTrace) -> str:
    return render(trace, Origin(load(["model=debug", "run.name=short"]), 1200))


def embedded(text: str, name: str) -> str:
    return re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', text, re.DOTALL).group(1)


def test_the_page_contains_every_number() -> None:
    trace = made()
    data = json.loads(embedded(page(trace), "data"))
    assert [data[name] for name in "TSRLKE"] == [3, 7, 5, 2, 2, 4]
    words = np.array(data["words"])
    assert words[data["tokens"]].tolist() == [
        trace.word_W[trace.word_id_W.tolist().index(token)] for token in trace.token_S
    ]
    top_TSR = trace.word_id_W[np.array(data["top"])].reshape(trace.top_token_TSR.shape)
    np.testing.assert_array_equal(top_TSR, trace.top_token_TSR)
    for name, array in (
        ("prob", trace.top_prob_TSR),
        ("next", trace.next_prob_TS),
        ("entropy", trace.entropy_TS),
        ("norm", trace.state_norm_TS),
        ("change", trace.relative_change_TS),
        ("halting", trace.halting_TS),
    ):
        shown = np.array(data[name], dtype=float).reshape(array.shape)
        np.testing.assert_allclose(shown, array, atol=5.1e-5)
    np.testing.assert_array_equal(np.array(data["experts"]).reshape(trace.expert_TLSK.shape), trace.expert_TLSK)


def test_the_maps_are_square_roots_as_bytes() -> None:
    trace = made()
    packed = np.frombuffer(gzip.decompress(base64.b64decode(embedded(page(trace), "maps-packed"))), np.uint8)
    weights = (packed.reshape(trace.attention_TCHSS.shape) / 255) ** 2
    np.testing.assert_allclose(weights, trace.attention_TCHSS, atol=0.5 / 255 * 2 + 1e-4)
    both = made(further_attention_TCHSS=trace.attention_TCHSS[::-1], further_gate_CH=np.array([[0.25, -0.5]]))
    packed = np.frombuffer(gzip.decompress(base64.b64decode(embedded(page(both), "maps-packed"))), np.uint8)
    weights = (packed.reshape(2, *trace.attention_TCHSS.shape) / 255) ** 2
    np.testing.assert_allclose(weights[1], trace.attention_TCHSS[::-1], atol=0.5 / 255 * 2 + 1e-4)
    data = json.loads(embedded(page(both), "data"))
    assert (data["sources"], data["gates"]) == (2, [0.25, -0.5])
    none = made(attention_TCHSS=np.zeros((3, 0, 2, 0, 0)), layer_C=np.zeros(0, dtype=int))
    assert embedded(page(none), "maps-packed") == ""


def test_what_a_model_lacks_is_null() -> None:
    data = json.loads(embedded(page(made(halting_TS=None, expert_TLSK=None)), "data"))
    assert data["halting"] is None
    assert data["experts"] is None


def test_the_page_loads_nothing_from_elsewhere_and_words_stay_text() -> None:
    text = page(made())
    assert "https://" not in text
    assert "http://" not in text
    assert "default-src 'none'" in text
    assert not re.search(r'\b(src|href)="', text)
    assert text.count("</script>") == text.count("<script")
    assert page(made()) == text


def test_the_final_prediction_loop_is_the_first_from_which_on_the_prediction_stays() -> None:
    words = np.array([[5, 5, 2, 2], [5, 2, 2, 5], [5, 5, 2, 2]])
    trace = made(top_token_TSR=np.repeat(words[:, :, None], 5, axis=2))
    assert final_prediction_loop(trace).tolist() == [1, 3, 1, 3]


def test_the_header_shows_how_well_the_text_is_predicted() -> None:
    trace = made()
    result = dict(facts(trace))
    nll_TS = -np.log(trace.next_prob_TS[:, :-1])
    assert result["Loss after the last loop"] == f"{nll_TS[2].mean():.3f} nats"
    assert result["Gained from loop 1 to 3"] == f"{nll_TS[0].mean() - nll_TS[2].mean():.3f} nats"
    expected = (trace.halting_TS * [[1], [2], [3]]).sum(0).mean()
    assert result["Mean exit loop"] == f"{expected:.1f}"


@pytest.mark.parametrize("absent", ["torch", "plotly"])
def test_the_page_needs_neither_torch_nor_plotly(absent: str) -> None:
    code = f"import sys; sys.modules['{absent}'] = None; import mythos.report.trace_page"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("gained", "changed", "color"),
    [
        (0.011, 0.09, "green"),
        (0.009, 0.09, "amber"),
        (0.011, 0.11, "amber"),
        (-0.011, 0.09, "red"),
        (0.02, 0.51, "red"),
    ],
)
def test_the_predictions_have_a_verdict(gained: float, changed: float, color: str) -> None:
    """The first loop's loss is 2 nats; the loops lower it by a share of that."""
    next_prob = np.exp(-np.linspace(2, 2 - 2 * gained, NUM_LOOPS))[:, None].repeat(NUM_TOKENS, 1)
    change = np.full((NUM_LOOPS, NUM_TOKENS), changed)
    text = page(made(next_prob_TS=next_prob, relative_change_TS=change))
    assert f'<p class="verdict {color}" id="predictions-verdict">' in text


@pytest.mark.parametrize(("share", "color"), [(0.79, "green"), (0.81, "amber"), (0.96, "red")])
def test_attention_to_the_first_token_has_a_verdict(share: float, color: str) -> None:
    attention = np.zeros((NUM_LOOPS, 1, 2, NUM_TOKENS, NUM_TOKENS))
    attention[..., 0] = share
    text = page(made(attention_TCHSS=attention))
    assert f'<p class="verdict {color}" id="attention-verdict">' in text
    assert f"The first token takes {100 * share:.0f}% of the attention" in text


def test_a_single_loop_has_no_verdict() -> None:
    trace = made()
    by_loop = {
        name: part for name, part in trace._asdict().items() if name.endswith(("_TS", "_TSR", "_TLSK", "_TCHSS"))
    }
    single = {name: part[:1] for name, part in by_loop.items() if part is not None}
    assert 'id="predictions-verdict"' not in page(trace._replace(**single))
