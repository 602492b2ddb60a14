"""Solved problems by difficulty and loop count."""

import argparse
from pathlib import Path
from typing import Any

from mythos.cli.evaluate_checkpoint import newest_checkpoint, title
from mythos.config.base import ConfigError
from mythos.data.manifest import read_manifest
from mythos.eval.held_out import ProblemResult, evaluate_problems
from mythos.eval.scoring import check_loops
from mythos.report.evaluations import REASONING, write_study


def reasoning(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate every data set of the run that holds problems.

    Raises:
        ConfigError: there is none.
    """
    num_loops = sorted(set(arguments.num_loops or (1, 2, 4, 8, 16)))
    check_loops(num_loops[-1])
    config, model, manifest = newest_checkpoint(run, arguments.data)
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
    results = {}
    for name in with_problems:
        results[name] = print_problems(name, evaluate_problems(Path(name), model, config.data, tuple(num_loops)))
    written = {
        "step": manifest.step,
        "mean_depth": config.depth.mean,
        "solved": {name: one["solved"] for name, one in results.items()},
        "accuracy": {name: one["accuracy"] for name, one in results.items()},
        "exits": {name: one["exits"] for name, one in results.items() if "exits" in one},
    }
    print(write_study(run, REASONING, written))
    return written


def print_problems(name: str, result: ProblemResult) -> dict[str, Any]:
    """Print accuracy by loop count, of all and by difficulty, and by quantile of an exit distribution."""
    print(f"{name}: share of {result.num_problems:,} problems solved, of all and by difficulty")
    print("  " + "".join(f"{heading!s:>8}" for heading in ("T", "all", *result.accuracy[min(result.accuracy)])))
    for count, accuracy in result.accuracy.items():
        print(f"  {count:>8}" + "".join(f"{share:>8.3f}" for share in (result.solved[count], *accuracy.values())))
    shares = {"solved": result.solved, "accuracy": result.accuracy}
    if not result.exits:
        return shares
    print("  exit at a quantile of the exit distribution: mean number of loops, share solved, rank correlation")
    for point in result.exits:
        numbers = f"{point.mean_loops:8.2f}{point.accuracy:8.3f}{point.rank_correlation:8.3f}"
        print(f"  {point.quantile:8.2f}{numbers}")
    return shares | {"exits": [point._asdict() for point in result.exits]}
