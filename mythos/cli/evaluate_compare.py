"""Several runs at equal parameters, equal training FLOPs and equal seconds."""

from pathlib import Path
from typing import Any

from mythos.config.base import ConfigError
from mythos.report.comparable import comparable
from mythos.report.compare import named
from mythos.report.read import read_run
from mythos.report.spent import Spent, at_equal, at_equal_parameters, spent


def compare(directories: list[Path]) -> dict[str, Any]:
    """Several runs at equal parameters, equal training FLOPs and equal seconds; reads records only."""
    if len({directory.resolve() for directory in directories}) < max(2, len(directories)):
        raise ConfigError(f"compare: {len(directories)} directories were given; name at least 2, each of them once.")
    runs, note = comparable(named([read_run(directory) for directory in directories], directories))
    if note is not None:
        print(note)
    costs = {}
    for name, run in runs.items():
        cost = spent(run)
        if cost is None:
            raise ConfigError(
                f"{name}: no validation has been recorded yet; wait for one, or lower run.validation.every."
            )
        costs[name] = cost
    found: dict[str, Any] = {"equal_parameters": at_equal_parameters(costs)}
    _print_costs(costs, found["equal_parameters"])
    for cost_name, title in (("flops", "training FLOPs"), ("seconds", "seconds of training")):
        table = at_equal(costs, cost_name)
        found[f"equal_{cost_name}"] = table._asdict()
        _print_equal(title, table.budgets, table.losses)
    found["runs"] = {
        name: {key: value if isinstance(value, int | str) else value.tolist() for key, value in cost._asdict().items()}
        for name, cost in costs.items()
    }
    return found


def _print_costs(costs: dict[str, Spent], groups: list[list[str]]) -> None:
    """What each run is and has spent, then the groups of nearly equal parameters."""
    width = max(map(len, costs)) + 2
    print(
        f"{'run':<{width}}{'parameters':>14}{'active':>14}{'tokens':>10}{'FLOPs':>10}{'seconds':>10}{'T':>4}{'loss':>9}"
    )
    for name, cost in costs.items():
        print(
            f"{name:<{width}}{cost.num_parameters:>14,}{cost.num_active:>14,}{cost.tokens[-1]:>10.3g}"
            f"{cost.flops[-1]:>10.3g}{cost.seconds[-1]:>10.4g}{cost.num_loops:>4}{cost.loss[-1]:>9.4f}"
        )
    print("last loss at equal parameters, within 5 %, and its distance to the best of the group")
    for group in groups:
        losses = {name: float(costs[name].loss[-1]) for name in group}
        for name in sorted(group, key=lambda name: losses[name]):
            distance = losses[name] - min(losses.values())
            print(f"  {name:<{width}}{costs[name].num_parameters:>14,}{losses[name]:>9.4f}{distance:>+9.4f}")


def _print_equal(title: str, budgets: list[float], losses: dict[str, list[float]]) -> None:
    """Losses at equal budgets, one row a run."""
    print(f"loss at equal {title}" + ("" if budgets else ": not recorded by all runs"))
    if budgets:
        width = max(map(len, losses)) + 2
        print(f"  {'':<{width}}" + "".join(f"{budget:>12.3g}" for budget in budgets))
        for name, row in losses.items():
            print(f"  {name:<{width}}" + "".join(f"{loss:>12.4f}" for loss in row))
