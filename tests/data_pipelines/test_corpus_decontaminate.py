import json
from pathlib import Path

import pytest
from datatrove.data import Document

from data_pipelines.corpus.config import NGramDecontamination
from data_pipelines.corpus.decontaminate import decontaminate, write_index
from data_pipelines.corpus.shards import read_shard, shard_path, write_shard
from mythos.config.base import ConfigError

QUESTION = "Which of the seven rivers that cross the northern plain carries the most water in spring?"
ANSWER = "the Alder, fed by snow"
FILLER = [f"Paragraph {number} tells at length of things that no examiner would ask." for number in range(60)]
RULE = NGramDecontamination(dir="unused", window_characters=300)


@pytest.fixture
def hashes(tmp_path: Path) -> Path:
    evaluations = tmp_path / "evaluations" / "rivers"
    evaluations.mkdir(parents=True)
    item = {"query": QUESTION, "choices": [ANSWER, "the Birch"], "gold": 0}
    (evaluations / "easy.jsonl").write_text(json.dumps(item) + "\n" + json.dumps({"query": "Too short?"}))
    (evaluations.parent / "plain.txt").write_text("Numbers 1 2 3 4 5 6 7 8 9 10 11 12 13 14 in a row. ")
    output = tmp_path / "index"
    output.mkdir()
    ledger = write_index(evaluations.parent, RULE, output, 0)
    assert sorted(ledger.summary()["noted"].values()) == [1, 2]
    return output


def test_files_of_one_task_do_not_replace_each_other(tmp_path: Path, hashes: Path) -> None:
    evaluations = tmp_path / "evaluations"
    text = "Letters a b c d e f g h i j k l m n in a row. "
    (evaluations / "plain.test.txt").write_text(text)
    write_index(evaluations, RULE, hashes, 0)
    documents, summary = clean(tmp_path, hashes, f"{(evaluations / 'plain.txt').read_text()}\n{text}")
    assert documents == []
    assert "matches plain" in summary["dropped"]
    sizes = {path.name: path.stat().st_size for path in hashes.iterdir()}
    # Each text has 18 words, that is 6 n-grams of 13 words, of 8 bytes each.
    assert sizes["plain.index.hashes"] == 8 * (6 + 6)


def clean(tmp_path: Path, hashes: Path, text: str) -> tuple[list[Document], dict]:
    shards, output = tmp_path / "in", tmp_path / "out"
    shards.mkdir()
    output.mkdir()
    write_shard(shard_path(shards, 0), [Document(text=text, id="d", metadata={"source": "s", "licence": "MIT"})])
    ledger = decontaminate(shards, hashes, RULE, output, 0)
    return list(read_shard(shard_path(output, 0))), ledger.summary()


def test_clean_text_is_unchanged(tmp_path: Path, hashes: Path) -> None:
    text = "\n".join(FILLER)
    (document,), summary = clean(tmp_path, hashes, text)
    assert (document.text, document.id) == (text, "d")
    assert "dropped" not in summary


def test_a_match_is_cut_out_and_the_rest_becomes_two_documents(tmp_path: Path, hashes: Path) -> None:
    # Case, punctuation and line breaks do not hide a match.
    quoted = QUESTION.upper().replace(" ", "\n", 3).replace("?", "!!")
    text = "\n".join([*FILLER[:30], quoted, *FILLER[30:]])
    documents, summary = clean(tmp_path, hashes, text)
    assert [document.id for document in documents] == ["d~0", "d~1"]
    kept = "\n".join(document.text for document in documents)
    assert "RIVERS" not in kept
    assert len(kept) > len(text) - 3 * RULE.window_characters
    assert documents[0].text.startswith(FILLER[0])
    assert documents[1].text.endswith(FILLER[-1])
    assert documents[1].metadata == {"source": "s", "licence": "MIT"}
    assert "matches rivers-easy" in summary["dropped"]
    assert summary["noted"] == {"documents that matched before": 1}


@pytest.mark.parametrize("offset", range(0, 320, 40))
def test_matches_across_the_border_of_two_windows_are_found(tmp_path: Path, hashes: Path, offset: int) -> None:
    text = "\n".join(["x" * offset, *FILLER[:6], QUESTION.replace(" ", "\n"), *FILLER[6:]])
    documents, _ = clean(tmp_path, hashes, text)
    kept = " ".join(document.text for document in documents)
    words = QUESTION.split()
    runs = ["\n".join(words[start : start + RULE.num_words]) for start in range(len(words) - RULE.num_words + 1)]
    assert len(runs) == 4
    assert not any(run.replace("\n", " ") in kept.replace("\n", " ") for run in runs)


def test_question_and_answer_together_match_across_their_border(tmp_path: Path, hashes: Path) -> None:
    quoted = "northern plain carries the most water in spring? the Alder, fed by snow"
    quoted = "northern plain carries the most water in spring? the Alder, fed by snow"
    text = "\n".join([*FILLER[:20], quoted, *FILLER[20:]])
    _, summary = clean(tmp_path, hashes, text)
    assert "matches rivers-easy" in summary["dropped"]


def test_other_numbers_do_not_match(tmp_path: Path, hashes: Path) -> None:
    (document,), _ = clean(tmp_path, hashes, "Numbers 5 6 9 4 1 6 3 8 9 17 11 12 19 14 in a row. " * 5)
    assert document.id == "d"


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decontamination\.dir: .* holds no evaluation set; put .*kind=none"):
        write_index(tmp_path, RULE, tmp_path, 0)
