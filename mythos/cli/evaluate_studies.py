"""The longer studies of ``mythos evaluate``: tasks, depth, problems by difficulty, and runs against each other."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos.config.base import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mythos.checkpoint.manifest import Manifest
    from mythos.config.run import RunConfig
    from mythos.eval import harness
    from mythos.eval.depth_sweep import Summary, Sweep
    from mythos.eval.scoring import Scorer
    from mythos.report.spent import Spent


def tasks(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on tasks of lm-evaluation-harness and of CORE; names and folder are checked before the model loads."""
    from mythos.eval import core_tasks
    from mythos.eval.exit_rule import chosen_rule
    from mythos.eval.scoring import check_loops, load_scorer
    from mythos.report.evaluations import add_task_results

    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit: {arguments.limit} was given; at least 1 item is needed.")
    for num_loops in arguments.num_loops or ():
        check_loops(num_loops)
    rule = chosen_rule(arguments.exit_rule, arguments.exit_threshold)
    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    of_core = [name for name in names if core_tasks.is_core(name)]
    others = [name for name in names if name not in of_core]
    chosen = {name: core_tasks.select_tasks(name, arguments.data_dir) for name in of_core}
    judge = _harness(others, arguments) if others else None
    if arguments.data_dir is not None and not arguments.data_dir.is_dir():
        raise ConfigError(f"--data-dir: {arguments.data_dir} is no folder; name the one that holds the sets.")

    results: list[dict[str, Any]] = []
    for num_loops in sorted(set(arguments.num_loops)) if arguments.num_loops else [None]:
        scorer, config, manifest = load_scorer(run, num_loops, rule)
        print(f"{_place(run, config, manifest)}, {_depth_in_words(scorer.num_loops, arguments)}")
        setting = {
            "step": manifest.step,
            "num_loops": scorer.num_loops,
            "exit_rule": None if rule is None else rule.kind,
            "exit_threshold": None if rule is None else rule.threshold,
            "limit": arguments.limit,
            "num_fewshot": arguments.num_fewshot,
        }

        def keep(
            name: str, metrics: dict[str, float], num_items: int | None, mean_loops: float, setting: Any = setting
        ) -> None:
            results.append(
                {"task": name, **setting, "num_items": num_items, "mean_loops": mean_loops, "metrics": metrics}
            )
            words = "   ".join(f"{key} {value:.4f}" for key, value in metrics.items())
            items = "" if num_items is None else f"{num_items:,} items"
            print(f"  {name:<40}{items:>14}   {words}" + (f"   {mean_loops:.2f} passes" if rule is not None else ""))

        for name in of_core:
            found = {}
            for task in chosen[name].values():
                result = found[task.name] = core_tasks.evaluate_task(scorer, task, arguments.data_dir, arguments.limit)
                metrics = {"acc": result.accuracy, "centred": result.centred}
                keep(f"core_{task.name}", metrics, result.num_items, result.mean_loops)
            if name == core_tasks.NAME and (value := core_tasks.core(found)) is not None:
                loops = sum(result.mean_loops for result in found.values()) / len(found)
                keep(name, {"core": value}, sum(result.num_items for result in found.values()), loops)
            elif name == core_tasks.NAME:
                missing = sorted(core_tasks.core_tasks().keys() - found.keys())
                print(f"  no CORE: {len(missing)} of its 22 tasks have no file ({', '.join(missing)})")
        for name in others:
            assert judge is not None
            for task_name, one in judge(scorer, name).items():
                keep(task_name, one.metrics, one.num_items, one.mean_loops)
    print(add_task_results(run, results))
    return {"results": results}


def _harness(
    names: list[str], arguments: argparse.Namespace
) -> "Callable[[Scorer, str], dict[str, harness.TaskResult]]":
    """lm-evaluation-harness, once the names and their data have been found."""
    from mythos.eval.harness import evaluate, task_manager

    manager = task_manager(names, arguments.data_dir)
    return lambda scorer, name: evaluate(scorer, [name], manager, arguments.limit, arguments.num_fewshot)


def depth_sweep(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Loss, accuracy, convergence, exits and what routing anew is worth, by depth, on held-out windows."""
    import torch

    from mythos.data.loader import batches
    from mythos.eval.depth_sweep import LOOP_COUNTS, summarize, sweep
    from mythos.eval.restore import check_data, restore
    from mythos.eval.scoring import check_loops
    from mythos.report.evaluations import DEPTH_SWEEP, write_study

    depths = sorted(set(arguments.num_loops or LOOP_COUNTS))
    check_loops(depths[-1])
    if arguments.num_windows < 1 or arguments.noise < 0:
        raise ConfigError(
            f"--num-windows {arguments.num_windows} and --noise {arguments.noise:g} were given; they must be at least "
            "1 and 0."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(run, device)
    check_data(config, manifest)
    data = config.data
    num_rows = min(arguments.num_windows, data.micro_batch_size)
    held_out = (
        batches(Path(directory), "validation", data.seq_len, num_rows, data.mask_documents)
        for directory in data.directories
    )
    some = (itertools.islice(stream, -(-arguments.num_windows // num_rows)) for stream in held_out)
    found = sweep(model, itertools.chain.from_iterable(some), depths[-1], arguments.noise)
    summary = summarize(found, depths, config.depth.mean)
    print(f"{_place(run, config, manifest)}: {found.num_tokens:,} held-out tokens, mean depth {config.depth.mean:g}")
    _print_sweep(found, depths, summary)
    _print_frozen(found, depths)
    study = found._asdict() | {
        "step": manifest.step,
        "num_loops": depths,
        "mean_depth": config.depth.mean,
        "rules": [point._asdict() for point in found.rules],
        "summary": summary._asdict() | {"fitted": None if summary.fitted is None else summary.fitted._asdict()},
    }
    print(write_study(run, DEPTH_SWEEP, study))
    return study


def _print_sweep(found: "Sweep", depths: list[int], summary: "Summary") -> None:
    """Tables by depth and by exit rule, and the fit between them."""
    print(f"  {'T':>4}{'loss':>9}{'accuracy':>10}{'change':>10}{'angle':>8}{'bend':>8}{'distance':>10}")
    for depth in depths:
        place = depth - 1
        print(
            f"  {depth:>4}{found.loss[place]:>9.4f}{found.accuracy[place]:>10.4f}{found.relative_change[place]:>10.2g}"
            f"{found.angle_degrees[place]:>8.3g}{found.curvature_ratio[place]:>8.3g}"
            f"{found.distance_to_last[place]:>10.2g}"
        )
    if (fitted := summary.fitted) is None:
        print("  no saturation fit: the loss does not fall and level off over these depths")
    else:
        print(
            f"  L(T) = {fitted.floor:.4f} + {fitted.amplitude:.4f} exp(-{fitted.rate:.3f} T / {fitted.mean_depth:g}), "
            f"root mean square error {fitted.error:.2g}"
        )
    distances = {"L(mean) - L_inf": summary.mean_minus_floor, "L(2 mean) - L(mean)": summary.twice_minus_mean}
    told = [f"{name} = {value:+.4f}" for name, value in distances.items() if value is not None]
    print("  " + "   ".join([f"best T = {summary.best_depth}", *told]))
    print(f"  {'exit rule':<20}{'threshold':>10}{'passes':>8}{'loss':>9}{'accuracy':>10}{'moved':>8}")
    for point in found.rules:
        numbers = f"{point.mean_loops:>8.2f}{point.loss:>9.4f}{point.accuracy:>10.4f}{point.changed_share:>8.3f}"
        print(f"  {point.rule:<20}{point.threshold:>10g}{numbers}")


def _print_frozen(found: "Sweep", depths: list[int]) -> None:
    """What it costs to keep the experts of the first pass; nothing for a dense core."""
    if found.frozen_loss is None or found.frozen_accuracy is None or found.shared_expert_share is None:
        return
    print("  routing frozen to the first pass")
    print(f"  {'T':>4}{'loss':>9}{'- free':>9}{'accuracy':>10}{'- free':>9}{'shared':>8}")
    for depth in depths:
        place = depth - 1
        loss, accuracy = found.frozen_loss[place], found.frozen_accuracy[place]
        print(
            f"  {depth:>4}{loss:>9.4f}{loss - found.loss[place]:>+9.4f}{accuracy:>10.4f}"
            f"{accuracy - found.accuracy[place]:>+9.4f}{found.shared_expert_share[place]:>8.3f}"
        )


def reasoning(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Solved problems by difficulty and depth, for every data set of the run that holds problems."""
    import torch

    from mythos.cli.evaluate import solved
    from mythos.data.manifest import read_manifest
    from mythos.eval.restore import check_data, restore
    from mythos.eval.scoring import check_loops
    from mythos.report.evaluations import REASONING, write_study

    depths = sorted(set(arguments.num_loops or (1, 2, 4, 8, 16)))
    check_loops(depths[-1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(run, device)
    check_data(config, manifest)
    with_problems = [
        directory
        for directory in config.data.directories
        if read_manifest(Path(directory)).splits["validation"].examples_file is not None
    ]
    if not with_problems:
        raise ConfigError(
            f"{run}: its data ({', '.join(config.data.directories)}) hold no problems; train on a task that "
            "mythos-data tasks makes, such as experiment=p-hop."
        )
    print(_place(run, config, manifest))
    found = {directory: solved(Path(directory), model, config.data, depths) for directory in with_problems}
    study = {
        "step": manifest.step,
        "accuracy": {directory: one["accuracy"] for directory, one in found.items()},
        "exits": {directory: one["exits"] for directory, one in found.items() if "exits" in one},
    }
    print(write_study(run, REASONING, study))
    return study


def compare(directories: list[Path]) -> dict[str, Any]:
    """Several runs at equal parameters, equal training FLOPs and equal seconds; reads records only."""
    from mythos.report.compare import named
    from mythos.report.read import read_run
    from mythos.report.spent import at_equal, at_equal_parameters, spent

    if len({directory.resolve() for directory in directories}) < max(2, len(directories)):
        raise ConfigError(f"compare: {len(directories)} directories were given; name at least 2, each of them once.")
    runs = named([read_run(directory) for directory in directories], directories)
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
        name: {key: value if isinstance(value, int) else value.tolist() for key, value in cost._asdict().items()}
        for name, cost in costs.items()
    }
    return found


def _print_costs(costs: "dict[str, Spent]", groups: list[list[str]]) -> None:
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


def _place(run: Path, config: "RunConfig", manifest: "Manifest") -> str:
    """Which checkpoint is judged; says so when the run has not reached its end."""
    last = config.run.num_steps
    return f"{run} at step {manifest.step}" + (f" of {last}, unfinished" if manifest.step < last else "")


def _depth_in_words(num_loops: int, arguments: argparse.Namespace) -> str:
    if arguments.exit_rule is None:
        return f"{num_loops} passes"
    return f"at most {num_loops} passes, leaving by {arguments.exit_rule}"
