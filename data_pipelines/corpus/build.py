"""Build a corpus from its sources: run the steps in order and report what each one dropped."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from data_pipelines.corpus.config import CorpusConfig, LanguageConfig, MinHash, NGramDecontamination
from data_pipelines.corpus.decontaminate import decontaminate, evaluation_files, write_index
from data_pipelines.corpus.documents import STAGES
from data_pipelines.corpus.duplicates import (
    cluster_near,
    drop_exact,
    drop_near,
    find_exact,
    match_near,
    sign_exact,
    sign_near,
)
from data_pipelines.corpus.filters import build_filters, rejection
from data_pipelines.corpus.ledger import Ledger
from data_pipelines.corpus.normalise import cut, normalise
from data_pipelines.corpus.shards import shard_path, write_shard
from data_pipelines.corpus.sources import Task, plan, read_task, resolve
from data_pipelines.corpus.steps import Step, run_step
from data_pipelines.lock import LOCK, locked
from mythos.config.base import ConfigError, difference, encode
from mythos.files import remove, write_text

REPORT: Final = "report.json"
_REQUEST: Final = "request.json"


def build_corpus(corpus: CorpusConfig, directory: Path, num_workers: int) -> dict[str, Any]:
    """Build the corpus in ``directory``, or resume building it; return the report, also written to ``report.json``.

    Does nothing if the same corpus from the same files is there already.

    Raises:
        ConfigError: a source is missing, another corpus is in ``directory``, or another run is active there.
    """
    if num_workers < 0:
        raise ConfigError(f"--workers is {num_workers}; give the number of processes, or 0 to work in this one.")
    # Missing folders, models and evaluation sets are found here, before hours of work.
    ledgers = {"plan": Ledger()}
    tasks = plan(corpus, ledgers["plan"])
    build_filters(corpus.language, corpus.quality)
    # The request depends on the files of the sources, but not on the path of their folder.
    request = encode(corpus) | {"source": None, "files": _fingerprint(corpus, tasks)}
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        if (directory / REPORT).exists():
            report = json.loads((directory / REPORT).read_text(encoding="utf-8"))
            _check_same(report["request"], request, directory)
            remove(directory / STAGES)
            return report
        stages = directory / STAGES
        if (stages / _REQUEST).exists():
            _check_same(json.loads((stages / _REQUEST).read_text(encoding="utf-8")), request, directory)
        elif any(path.name != LOCK for path in directory.iterdir() if path != stages):
            raise ConfigError(f"{directory} holds other files; give --to a new folder.")
        else:
            write_text(stages / _REQUEST, json.dumps(request))
        for step in _steps(corpus, tasks, stages):
            ledgers[step.name] = run_step(step, stages / step.name, num_workers)
        return _publish(corpus, request, ledgers, directory)


def clean_shard(corpus: CorpusConfig, language: LanguageConfig, tasks: list[Task], output: Path, index: int) -> Ledger:
    """Read one task's documents, normalise and filter them, and write those that are kept."""
    ledger = Ledger()
    filters = build_filters(language, corpus.quality)

    def kept() -> Iterator[Any]:
        for raw in ledger.count_read(read_task(corpus, tasks[index], ledger)):
            raw.text = normalise(raw.text, fix_encoding=corpus.fix_encoding)
            if not raw.text.strip():
                ledger.drop("empty", raw)
                continue
            for document in cut(raw, corpus.max_characters):
                reason = rejection(filters, document)
                if reason is None:
                    yield document
                else:
                    ledger.drop(reason, document)

    write_shard(shard_path(output, index), ledger.count_kept(kept()))
    return ledger


def _steps(corpus: CorpusConfig, tasks: list[Task], stages: Path) -> Iterator[Step]:
    """Yield the steps in order; each reads the folder of an earlier, finished step."""
    number = len(tasks)
    yield Step("clean", number, partial(clean_shard, corpus, corpus.language, tasks))
    shards = stages / "clean"
    if corpus.exact_duplicates == "drop":
        yield Step("exact-signatures", number, partial(sign_exact, shards))
        yield Step("exact-matches", 1, partial(find_exact, stages / "exact-signatures"))
        yield Step("exact-duplicates", number, partial(drop_exact, shards, stages / "exact-matches"))
        shards = stages / "exact-duplicates"
    near = corpus.near_duplicates
    if isinstance(near, MinHash):
        yield Step("near-signatures", number, partial(sign_near, shards, near))
        yield Step("near-matches", near.num_buckets, partial(match_near, stages / "near-signatures", near))
        yield Step("near-clusters", 1, partial(cluster_near, stages / "near-matches", near))
        yield Step("near-duplicates", number, partial(drop_near, shards, stages / "near-clusters"))
        shards = stages / "near-duplicates"
    rule = corpus.decontamination
    if isinstance(rule, NGramDecontamination):
        yield Step("evaluation-index", 1, partial(write_index, resolve(corpus, rule.dir), rule))
        yield Step("decontaminate", number, partial(decontaminate, shards, stages / "evaluation-index", rule))


def _publish(
    corpus: CorpusConfig, request: dict[str, Any], ledgers: dict[str, Ledger], directory: Path
) -> dict[str, Any]:
    """Move the last step's shards into ``directory``; the report is written last and marks the corpus as complete."""
    steps = {name: ledger for name, ledger in ledgers.items() if ledger.counts or ledger.problems}
    last = [name for name, ledger in ledgers.items() if ledger.summary().get("read")][-1]
    final = ledgers[last].summary()
    shards = directory / STAGES / last
    for path in sorted(shards.glob("*.jsonl.zst")):
        path.replace(directory / f"documents-{path.name}")
    report = {
        "kept": final.get("kept", {"documents": 0, "bytes": 0}),
        "sources": final.get("source", {}),
        "licences": final.get("licence", {}),
        "steps": {name: _step_summary(ledger) for name, ledger in steps.items()},
        "problems": [problem for ledger in ledgers.values() for problem in ledger.problems],
        "request": request,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # A path of the request that is not UTF-8 keeps its surrogates, as JSON escapes.
    write_text(directory / REPORT, text.encode("utf-8", "backslashreplace").decode())
    remove(directory / STAGES)
    return report


def _step_summary(ledger: Ledger) -> dict[str, Any]:
    summary = ledger.summary()
    return {key: summary[key] for key in ("read", "kept", "dropped", "skipped", "noted") if key in summary}


def _check_same(before: dict[str, Any], now: dict[str, Any], directory: Path) -> None:
    if changes := difference(before, now):
        raise ConfigError(
            f"{directory} holds a corpus of another request ({'; '.join(map(_shortened, changes[:3]))}); "
            "give --to a new folder, or remove this one."
        )


def _fingerprint(corpus: CorpusConfig, tasks: list[Task]) -> str:
    """Hash of the paths, sizes and order of the sources' files and of the evaluation sets."""
    listing: list[Any] = [encode(task) for task in tasks]
    if isinstance(corpus.decontamination, NGramDecontamination):
        paths = evaluation_files(resolve(corpus, corpus.decontamination.dir))
        listing += [(path.name, path.stat().st_size) for path in paths]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _shortened(change: str) -> str:
    return change if len(change) <= 160 else f"{change[:157]}..."
