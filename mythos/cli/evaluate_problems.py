"""Solved problems by difficulty and loop count."""

import argparse
from pathlib import Path
from typing import Any, Final

from mythos.cli.evaluate_checkpoint import newest_checkpoint, title
from mythos.config.base import ConfigError
from mythos.config.data import DataConfig
from mythos.data.manifest import read_manifest
from mythos.eval.reasoning import exit_point, study
from mythos.eval.scoring import check_loops
from mythos.model.mythos import Mythos
from mythos.report.evaluations import REASONING, write_study

_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def reasoning(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate every data set of the run that holds problems.

    Raises:
        ConfigError: there is none.
    """
    num_loops = sorted(set(arguments.num_loops or (1, 2, 4, 8, 16)))
    check_loops(num_loops[-1])
    config, model, manifest = newest_checkpoint(run)
    with_problems = [
        name
        for name in config.data.directories
        if read_manifest(Path(name)).splits["validation"].examples_file is not None
    ]
    if not with_problems:
        raise ConfigError(
            f"{run}: its data ({', '.join(config.data.directories)}) hold no problems; train on a task that "
            "mythos-data tasks makes, such as experiment=p-hop."
        )
    print(title(run, config, manifest))
    results = {name: solved_problems(Path(name), model, config.data, num_loops) for name in with_problems}
    written = {
        "step": manifest.step,
        "accuracy": {name: one["accuracy"] for name, one in results.items()},
        "exits": {name: one["exits"] for name, one in results.items() if "exits" in one},
    }
    print(write_study(run, REASONING, written))
    return written


def solved_problems(directory: Path, model: Mythos, data: DataConfig, num_loops: list[int]) -> dict[str, Any]:
    """Accuracy by difficulty and loop count, and by quantile of the exit distribution where there is one."""
    result = study(model, directory, data, max(num_loops))
    table = {count: result.accuracy(count) for count in sorted(set(num_loops))}
    print(f"{directory}: share of {len(result.difficulty_E):,} problems solved, by difficulty")
    print("  " + "".join(f"{name!s:>8}" for name in ("T", *table[min(table)])))
    for count, accuracy in table.items():
        print(f"  {count:>8}" + "".join(f"{share:>8.3f}" for share in accuracy.values()))
    results: dict[str, Any] = {"accuracy": table}
    if result.exit_prob_TE is not None:
        points = [exit_point(result, quantile) for quantile in _QUANTILES]
        print("  exit at a quantile of the exit distribution: mean number of loops, share solved, rank correlation")
        for point in points:
            numbers = f"{point.mean_loops:8.2f}{point.accuracy:8.3f}{point.rank_correlation:8.3f}"
            print(f"  {point.quantile:8.2f}{numbers}")
        results["exits"] = [point._asdict() for point in points]
    return results
