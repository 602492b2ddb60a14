import json
import random
from pathlib import Path

import pytest

from mythos.cli.main import main
from mythos.eval.local_data import read
from mythos.eval.scoring import load_scorer

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM

from mythos.eval.harness import MythosLM, evaluate, task_manager

WORDS = "the king speaks to his queen of war and peace while night falls upon old england my lord said he".split()
NAMES = ["piqa_local", "copa_local", "blimp_local", "winogrande_local"]
NUM_ITEMS = 200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 items of random words for each of four tasks."""
    folder = tmp_path_factory.mktemp("many")
    dice = random.Random(3)

    def words(count: int) -> str:
        return " ".join(dice.choices(WORDS, k=count))

    answers = [
        {"query": words(dice.randint(3, 12)), "choices": [words(4), words(6)], "gold": dice.randrange(2)}
        for _ in range(NUM_ITEMS)
    ]
    endings = [
        {"context_options": [words(5), words(7)], "continuation": words(4), "gold": dice.randrange(2)}
        for _ in range(NUM_ITEMS)
    ]
    pairs = [{"sentence_good": words(6), "sentence_bad": words(6)} for _ in range(NUM_ITEMS)]
    (folder / "blimp").mkdir()
    sets = {"piqa": answers, "copa": answers[::-1], "winogrande": endings, "blimp/words": pairs}
    for name, rows in sets.items():
        write_lines(folder / f"{name}.jsonl", rows)
        assert read(folder / f"{name}.jsonl") == rows
    return folder


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_an_exported_model_scores_as_its_checkpoint_does(short_run: Path, many: Path, tmp_path: Path) -> None:
    """The harness's own transformers model and the model mythos give bitwise equal metrics."""
    assert main(["export", str(short_run), "--to", str(tmp_path / "hf")]) == 0
    exported = HFLM(
        pretrained=str(tmp_path / "hf"),
        trust_remote_code=True,
        dtype="float32",
        device="cpu",
        batch_size=16,
        add_bos_token=True,
    )
    scorer, _, _ = load_scorer(short_run)
    assert exported.tok_encode("the king") == MythosLM.from_scorer(scorer).tok_encode("the king")
    manager = task_manager(NAMES, many)
    theirs = simple_evaluate(model=exported, tasks=NAMES, task_manager=manager, bootstrap_iters=0, log_samples=False)[
        "results"
    ]
    ours = evaluate(scorer, NAMES, manager)
    for name in NAMES:
        assert ours[name].num_items == NUM_ITEMS
        for metric, value in ours[name].metrics.items():
            assert theirs[name][f"{metric},none"] == value
