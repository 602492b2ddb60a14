"""Accuracy on tasks of lm-evaluation-harness and of CORE."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos.cli.evaluate_checkpoint import title
from mythos.config.base import ConfigError
from mythos.eval import core_tasks
from mythos.eval.exit_rule import chosen_rule
from mythos.eval.scoring import Scorer, check_loops, load_scorer
from mythos.parallel.threads import take_threads
from mythos.report.evaluations import add_task_results

if TYPE_CHECKING:
    from mythos.eval import harness


class _ResultTable:
    """The results of one model at one number of loops; each is printed as it is added."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self.setting = setting
        self.results: list[dict[str, Any]] = []

    def add(
        self,
        task: str,
        metrics: dict[str, float],
        errors: dict[str, float],
        num_items: int | None,
        mean_loops: float,
    ) -> None:
        result = {"task": task, **self.setting, "num_items": num_items, "mean_loops": mean_loops, "metrics": metrics}
        self.results.append({**result, "standard_errors": errors})
        values = "   ".join(_with_error(key, value, errors.get(key)) for key, value in metrics.items())
        items = "" if num_items is None else f"{num_items:,} items"
        loops = "" if self.setting["exit_rule"] is None else f"   {mean_loops:.2f} loops"
        print(f"  {task:<40}{items:>14}   {values}{loops}")


def tasks(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the tasks at each number of loops; names and folder are checked before the model loads."""
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit: {arguments.limit} was given; at least 1 item is needed.")
    for num_loops in arguments.num_loops or ():
        check_loops(num_loops)
    rule = chosen_rule(arguments.exit_rule, arguments.exit_threshold)
    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    of_core = {name: core_tasks.select_tasks(name, arguments.data_dir) for name in names if core_tasks.is_core(name)}
    of_harness = [name for name in names if name not in of_core]
    evaluate = _harness(of_harness, arguments) if of_harness else None
    if arguments.data_dir is not None and not arguments.data_dir.is_dir():
        raise ConfigError(f"--data-dir: {arguments.data_dir} is no folder; name the one that holds the sets.")

    take_threads()
    results: list[dict[str, Any]] = []
    for num_loops in sorted(set(arguments.num_loops)) if arguments.num_loops else [None]:
        scorer, config, manifest = load_scorer(run, num_loops, rule)
        print(f"{title(run, config, manifest)}, {_loops_in_words(scorer)}")
        table = _ResultTable(_setting(scorer, manifest.step, arguments))
        for name, chosen in of_core.items():
            _evaluate_core(scorer, name, list(chosen.values()), arguments, table)
        for name in of_harness:
            assert evaluate is not None
            for task, result in evaluate(scorer, name).items():
                table.add(task, result.metrics, result.errors, result.num_items, result.mean_loops)
        results += table.results
    print(add_task_results(run, results))
    return {"results": results}


def _evaluate_core(
    scorer: Scorer, name: str, chosen: list[core_tasks.CoreTask], arguments: argparse.Namespace, table: _ResultTable
) -> None:
    """Evaluate one task of CORE, or all that are there, and CORE itself if none is missing."""
    results = {}
    for task in chosen:
        result = core_tasks.evaluate_task(scorer, task, arguments.data_dir, arguments.limit)
        metrics = {"acc": result.accuracy, "centred": result.centred}
        error = result.error
        errors = {} if error is None else {"acc": error, "centred": task.scaled(error)}
        table.add(f"core_{task.name}", metrics, errors, result.num_items, result.mean_loops)
        results[task.name] = result
    if name != core_tasks.NAME:
        return
    if (value := core_tasks.core(results)) is None:
        missing = sorted(core_tasks.core_tasks().keys() - results.keys())
        print(f"  no CORE: {len(missing)} of its 22 tasks have no file ({', '.join(missing)})")
        return
    mean_loops = sum(result.mean_loops for result in results.values()) / len(results)
    errors = {} if (error := core_tasks.core_error(results)) is None else {"core": error}
    table.add(name, {"core": value}, errors, sum(result.num_items for result in results.values()), mean_loops)


def _harness(
    names: list[str], arguments: argparse.Namespace
) -> Callable[[Scorer, str], "dict[str, harness.TaskResult]"]:
    """lm-evaluation-harness, once the names and their data have been found."""
    from mythos.eval.harness import evaluate, task_manager  # needs the optional lm-eval

    manager = task_manager(names, arguments.data_dir)
    return lambda scorer, name: evaluate(scorer, [name], manager, arguments.limit, arguments.num_fewshot)


def _setting(scorer: Scorer, step: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What each result is recorded with."""
    return {
        "step": step,
        "num_loops": scorer.num_loops,
        "exit_rule": None if scorer.rule is None else scorer.rule.kind,
        "exit_threshold": None if scorer.rule is None else scorer.rule.threshold,
        "limit": arguments.limit,
        "num_fewshot": arguments.num_fewshot,
    }


def _with_error(name: str, value: float, error: float | None) -> str:
    return f"{name} {value:.4f}" if error is None else f"{name} {value:.4f} ± {error:.4f}"


def _loops_in_words(scorer: Scorer) -> str:
    if scorer.rule is None:
        return f"{scorer.num_loops} loops"
    return f"at most {scorer.num_loops} loops, exit by {scorer.rule.kind}"
