import random
from pathlib import Path

import pytest
import torch
from helpers import run_config

from mythos.checkpoint.manifest import Manifest
from mythos.config.base import ConfigError
from mythos.config.decoding import ExitRule
from mythos.data.manifest import data_fingerprint
from mythos.eval.restore import check_data
from mythos.eval.scoring import Scorer, load_scorer, mean_loops
from mythos.model.generate import generate

TEXTS = ["the king", "his queen of war and peace", "night", "old england my lord said he while"]


def pairs_of(scorer: Scorer) -> list[tuple[list[int], list[int]]]:
    dice = random.Random(1)
    encoded = [scorer.encode(text) for text in TEXTS]
    return [([0, *context], answer) for context in encoded for answer in dice.sample(encoded, 2)]


def one_by_one(scorer: Scorer, context: list[int], answer: list[int]) -> tuple[float, bool]:
    """Log-probability and ``is_greedy`` by decoding token by token."""
    model = scorer.model
    cache = model.new_cache(scorer.num_loops, len(context) + len(answer))
    new_tokens, total, is_greedy = context, 0.0, True
    for token in answer:
        log_prob_V = model.decode(torch.tensor([new_tokens]), cache)[0, -1].double().log_softmax(-1)
        total += float(log_prob_V[token])
        is_greedy &= int(log_prob_V.argmax()) == token
        new_tokens = [token]
    return total, is_greedy


def with_options(scorer: Scorer, **options) -> Scorer:
    return Scorer(scorer.model, scorer.tokenizer, scorer.separator_id, **{"num_loops": 3} | options)


def test_scores_equal_decoding_token_by_token_for_every_batch_size(scorer: Scorer) -> None:
    pairs = pairs_of(scorer)
    (greedy,) = scorer.generate([[0, *scorer.encode("the king")]], 5, [])
    pairs.append(([0, *scorer.encode("the king")], scorer.encode(greedy)))
    expected = [one_by_one(scorer, *pair) for pair in pairs]
    for batch_tokens in (1, 40, 8192):
        scores = with_options(scorer, batch_tokens=batch_tokens).score(pairs)
        assert [one.log_prob for one in scores] == pytest.approx([total for total, _ in expected], rel=1e-5)
        assert [one.is_greedy for one in scores] == [is_greedy for _, is_greedy in expected]
        assert [one.num_tokens for one in scores] == [len(answer) for _, answer in pairs]
    assert scorer.score(pairs) == scorer.score(pairs)
    assert mean_loops(scores) == 3


def test_the_model_runs_the_requested_number_of_loops(scorer: Scorer) -> None:
    pairs = pairs_of(scorer)
    deep = with_options(scorer, num_loops=6)
    assert deep.score(pairs)[0].log_prob == pytest.approx(one_by_one(deep, *pairs[0])[0], rel=1e-5)
    assert deep.score(pairs)[0].log_prob != pytest.approx(scorer.score(pairs)[0].log_prob, rel=1e-3)


def test_under_a_rule_each_token_is_scored_at_its_exit_in_decoding(scorer: Scorer) -> None:
    rule = ExitRule("relative_change", 0.4)
    adaptive = with_options(scorer, num_loops=6, rule=rule)
    pairs = pairs_of(scorer)
    scores = adaptive.score(pairs)
    for (context, answer), score in zip(pairs, scores, strict=True):
        cache = scorer.model.new_cache(6, len(context) + len(answer))
        new_tokens, total, loops = context, 0.0, []
        for token in answer:
            with torch.no_grad():
                decoded = scorer.model.decode_until(torch.tensor([new_tokens]), cache, rule)
            total += float(decoded.logits_BSV[0, -1].double().log_softmax(-1)[token])
            loops.append(int(decoded.num_loops_BS[0, -1]))
            new_tokens = [token]
        assert score.log_prob == pytest.approx(total, rel=1e-5)
        assert score.num_loops == pytest.approx(sum(loops) / len(loops))
    assert 1 < mean_loops(scores) < 6
    never = with_options(scorer, num_loops=3, rule=ExitRule("relative_change", 1e-9)).score(pairs)
    assert [one.log_prob for one in never] == pytest.approx([one.log_prob for one in scorer.score(pairs)], rel=1e-5)


def test_text_under_a_rule_equals_that_of_generate(scorer: Scorer) -> None:
    rule = ExitRule("relative_change", 0.4)
    prompt = [0, *scorer.encode("the king")]
    expected = generate(scorer.model, torch.tensor([prompt]), 8, 6, temperature=0, top_k=None, seed=0, rule=rule)
    tokens = expected.tokens_BS[0].tolist()
    tokens = tokens[: tokens.index(0)] if 0 in tokens else tokens
    (text,) = with_options(scorer, num_loops=6, rule=rule).generate([prompt], 8, [])
    assert text == scorer.tokenizer.decode(tokens, skip_special_tokens=False)
    assert float(expected.num_loops_BS.float().mean()) < 6


def test_long_requests_are_truncated_from_the_left(scorer: Scorer) -> None:
    limit = scorer.max_length
    context, answer = [0, *([5, 6, 7] * 60)], [9, 11, 12]
    (long,) = scorer.score([(context, answer)])
    (cut,) = scorer.score([(context[-(limit + 1 - 3) :], answer)])
    assert long == cut
    assert long.log_prob == pytest.approx(one_by_one(scorer, context[-(limit + 1 - 3) :], answer)[0], rel=1e-5)
    (only_end,) = scorer.score([([0], [8] * (limit + 20))])
    assert only_end.num_tokens == limit


def test_text_is_greedy_up_to_a_stop_string(scorer: Scorer) -> None:
    prompts = [[0, *scorer.encode(text)] for text in TEXTS]
    whole = scorer.generate(prompts, 12, [])
    for prompt, text in zip(prompts, whole, strict=True):
        tokens = list(prompt)
        for _ in range(12):
            cache = scorer.model.new_cache(3, len(tokens))
            tokens.append(int(scorer.model.decode(torch.tensor([tokens]), cache)[0, -1].argmax()))
            if tokens[-1] == 0:
                tokens.pop()
                break
        assert text == scorer.tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=False)
    stop = whole[0][3:5]
    assert stop
    (stopped,) = scorer.generate(prompts[:1], 12, [stop])
    assert stopped == whole[0][: whole[0].index(stop)]
    (longest,) = scorer.generate([[5] * 500], 4, [])
    assert longest == scorer.generate([[5] * 92], 4, [])[0]


@pytest.mark.parametrize("max_new_tokens", [20, 95, 96, 500])
def test_prompts_are_kept_where_the_new_tokens_do_not_fit(scorer: Scorer, max_new_tokens: int) -> None:
    long = [0, *([5, 6, 7] * 28)]  # 85 tokens, of 96
    prompts = [[0, *scorer.encode(text)] for text in TEXTS] + [long]
    alone = [scorer.generate([one], min(max_new_tokens, scorer.max_length - len(one)), [])[0] for one in prompts]
    before = scorer.num_shortened
    assert scorer.generate(prompts, max_new_tokens, []) == alone
    assert len(set(alone)) == len(alone)
    assert scorer.num_shortened == before


def test_requests_beyond_the_context_are_counted(scorer: Scorer) -> None:
    limit, before = scorer.max_length, scorer.num_shortened
    scorer.score([([0] * limit, [5]), ([0] * limit, [5, 6]), ([0], [5] * (limit + 1))])
    assert scorer.num_shortened == before + 2
    (whole,) = scorer.generate([[5] * limit], 500, [])
    assert whole == scorer.generate([[5] * (limit // 2)], 500, [])[0]
    assert scorer.num_shortened == before + 3


def test_an_empty_continuation_is_refused_in_a_sentence(scorer: Scorer) -> None:
    pairs = [([0, *scorer.encode("the king")], [5]), ([0, *scorer.encode("the queen")], [])]
    with pytest.raises(ConfigError, match=r"request 2 of 2, whose context ends in '.*the queen', has an empty contin"):
        scorer.score(pairs)


@pytest.mark.parametrize("num_loops", [0, -3, 5000])
def test_num_loops_out_of_range_is_refused_before_the_model_is_loaded(num_loops: int) -> None:
    with pytest.raises(ConfigError, match=f"num_loops: {num_loops} was given; the core runs at least 1 and at most"):
        load_scorer(Path("nowhere"), num_loops)


def test_data_that_were_packed_again_are_refused(packed: Path) -> None:
    config = run_config(f"data.dir={packed}")
    common = {"step": 1, "tokens": 1, "next_sample": 1, "config": {}, "fingerprint": "", "code_version": ""}
    unchanged = Manifest(**common, data_fingerprint=data_fingerprint([str(packed)]), layout={})
    check_data(config, unchanged)
    with pytest.raises(ConfigError, match="trained on 0123456789abcdef, so their tokenizer may be another one"):
        check_data(config, Manifest(**common, data_fingerprint="0123456789abcdef", layout={}))
