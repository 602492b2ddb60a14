"""Fixtures: a scorer of a random model, a run of the training command, and evaluation sets in their layouts."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import model_config, random_model

from mythos.cli.main import main
from mythos.data.manifest import read_manifest
from mythos.data.tokenizer import load_tokenizer
from mythos.eval.scoring import Scorer

SHORT = """model=debug model.vocab_size=512 model.max_seq_len=96 data.seq_len=32 data.batch_size=4
data.micro_batch_size=4 depth.mean=2 run.num_steps=6 run.validation.every=2 run.validation.num_batches=2
run.checkpoint.every=6 tracking.log_every=1 parallel.device=cpu schedule.num_warmup_steps=1""".split()


@pytest.fixture(scope="session")
def scorer(packed: Path) -> Scorer:
    """A random model of 96 input tokens at three loops."""
    model = random_model(model_config("debug", vocab_size=512, max_seq_len=96)).eval()
    return Scorer(model, load_tokenizer(packed), read_manifest(packed).separator_id, num_loops=3)


@pytest.fixture(scope="session")
def short_run(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    parent = tmp_path_factory.mktemp("evaluated")
    assert main(["train", *SHORT, f"data.dir={packed}", f"run.dir={parent}", "run.name=short"]) == 0
    return parent / "short"


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two items of every layout of the task files."""
    folder = tmp_path_factory.mktemp("sets")
    answers = [
        {"query": "Question: who speaks to the king?\n", "choices": ["my lord", "the queen"], "gold": 1},
        {"query": "Question: what falls upon england?\n", "choices": ["night", "war and peace"], "gold": 0},
    ]
    for name in (
        "piqa copa openbook_qa arc_easy arc_challenge boolq hellaswag commonsense_qa agi_eval_lsat_ar "
        "bigbench_language_identification"
    ).split():
        _write(folder / f"{name}.jsonl", answers)
    options = ["the king speaks to the queen so the king", "the king speaks to the queen so the queen"]
    schema = [{"context_options": options, "continuation": f"said {word}.", "gold": 1} for word in ("war", "peace")]
    for name in ("winogrande", "winograd_wsc"):
        _write(folder / f"{name}.jsonl", schema)
    exact = [{"context": f"the king said {number} \n", "continuation": "while night falls"} for number in (1, 2)]
    for name in (
        "bigbench_dyck_languages bigbench_operators lambada_openai jeopardy_all bigbench_qa_wikidata "
        "bigbench_cs_algorithms bigbench_repeat_copy_logic squad coqa"
    ).split():
        _write(folder / f"{name}.jsonl", exact)
    for name in (
        "single_digit_three_ops three_digit_addition two_digit_addition two_digit_multiplication two_digit_subtraction"
    ).split():
        sums = [
            {"context": f"\n\nQ: What is {number} plus 1?\n\nA:", "completion": f" {number + 1}"} for number in (3, 4)
        ]
        _write(folder / "gpt3_arithmetic" / f"{name}.jsonl", sums)
    pairs = [{"sentence_good": f"the {who} speaks.", "sentence_bad": f"the {who} speak."} for who in ("king", "queen")]
    _write(folder / "blimp" / "agreement_1.jsonl", pairs[:1])
    _write(folder / "blimp" / "agreement_2.jsonl", pairs[1:])
    words = [
        {"context": f"{n} kings and 1 queen?", "chain_of_thought": f"{n} + 1", "answer": f"{n + 1}"}
        for n in range(2, 8)
    ]
    for name in ("gsm8k", "svamp"):
        _write(folder / f"{name}.jsonl", words)
    for name, count in (("test", 2), ("dev", 3)):
        subjects = ("old_england", "war")
        rows = [
            {"question": f"who is {number}?", "subject": subject, "choices": ["w", "x", "y", "z"], "answer": number}
            for number in range(count)
            for subject in subjects
        ]
        _write(folder / "mmlu" / f"{name}.jsonl", rows)
    (folder / "wikitext2_raw_test.txt").write_text(
        " \n = King = \n \n the king . \n = = Queen = = \n x \n = War = \n y \n"
    )
    return folder


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
