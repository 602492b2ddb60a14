"""The depth sweep: loss, convergence, exit rules and frozen routing by loop count."""

import argparse
import itertools
from pathlib import Path
from typing import Any

from mythos.cli.evaluate_checkpoint import newest_checkpoint, title
from mythos.config.base import ConfigError
from mythos.data.loader import batches
from mythos.eval.depth_sweep import LOOP_COUNTS, Summary, Sweep, summarize, sweep
from mythos.eval.scoring import check_loops
from mythos.report.evaluations import DEPTH_SWEEP, write_study


def depth_sweep(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate held-out windows at every number of loops up to the largest one that is asked for."""
    num_loops = sorted(set(arguments.num_loops or LOOP_COUNTS))
    check_loops(num_loops[-1])
    if arguments.num_windows < 1 or arguments.noise < 0:
        raise ConfigError(
            f"--num-windows {arguments.num_windows} and --noise {arguments.noise:g} were given; they must be at least "
            "1 and 0."
        )
    config, model, manifest = newest_checkpoint(run, arguments.data)
    data = config.data
    num_rows = min(arguments.num_windows, data.micro_batch_size)
    held_out = (
        batches(Path(directory), "validation", data.seq_len, num_rows, data.mask_documents)
        for directory in data.directories
    )
    first = (itertools.islice(stream, -(-arguments.num_windows // num_rows)) for stream in held_out)
    measured = sweep(model, itertools.chain.from_iterable(first), num_loops[-1], arguments.noise)
    summary = summarize(measured, num_loops, config.depth.mean)
    mean = f"{config.depth.mean:g} loops on average in training"
    print(f"{title(run, config, manifest)}: {measured.num_tokens:,} held-out tokens, {mean}")
    _print_sweep(measured, num_loops, summary)
    _print_frozen(measured, num_loops)
    study = measured._asdict() | {
        "step": manifest.step,
        "num_loops": num_loops,
        "mean_depth": config.depth.mean,
        "rules": [point._asdict() for point in measured.rules],
        "summary": summary._asdict() | {"fitted": None if summary.fitted is None else summary.fitted._asdict()},
    }
    print(write_study(run, DEPTH_SWEEP, study))
    return study


def _print_sweep(measured: Sweep, num_loops: list[int], summary: Summary) -> None:
    """Print tables by loop count and by exit rule, and the fit between them."""
    print(f"  {'T':>4}{'loss':>9}{'accuracy':>10}{'change':>10}{'angle':>8}{'curvature':>11}{'distance':>10}")
    for count in num_loops:
        loop = count - 1
        print(
            f"  {count:>4}{measured.loss[loop]:>9.4f}{measured.accuracy[loop]:>10.4f}"
            f"{measured.relative_change[loop]:>10.2g}{measured.angle_degrees[loop]:>8.3g}"
            f"{measured.curvature_ratio[loop]:>11.3g}{measured.distance_to_last[loop]:>10.2g}"
        )
    if (fitted := summary.fitted) is None:
        print("  no saturation fit: the loss does not fall and level off over these loop counts")
    else:
        print(
            f"  L(T) = {fitted.floor:.4f} + {fitted.amplitude:.4f} exp(-{fitted.rate:.3f} T / {fitted.mean_depth:g}), "
            f"root mean square error {fitted.error:.2g}"
        )
    distances = {"L(mean) - L_inf": summary.mean_minus_floor, "L(2 mean) - L(mean)": summary.twice_minus_mean}
    known = [f"{name} = {value:+.4f}" for name, value in distances.items() if value is not None]
    print("  " + "   ".join([f"best T = {summary.best_depth}", *known]))
    print(f"  {'exit rule':<20}{'threshold':>10}{'loops':>8}{'loss':>9}{'accuracy':>10}{'moved':>8}")
    for point in measured.rules:
        numbers = f"{point.mean_loops:>8.2f}{point.loss:>9.4f}{point.accuracy:>10.4f}{point.changed_share:>8.3f}"
        print(f"  {point.rule:<20}{point.threshold:>10g}{numbers}")


def _print_frozen(measured: Sweep, num_loops: list[int]) -> None:
    """Print what it costs to keep the experts of the first loop; print nothing for a dense core."""
    if measured.frozen_loss is None or measured.frozen_accuracy is None or measured.shared_expert_share is None:
        return
    print("  routing frozen to the first loop")
    print(f"  {'T':>4}{'loss':>9}{'- free':>9}{'accuracy':>10}{'- free':>9}{'shared':>8}")
    for count in num_loops:
        loop = count - 1
        loss, accuracy = measured.frozen_loss[loop], measured.frozen_accuracy[loop]
        print(
            f"  {count:>4}{loss:>9.4f}{loss - measured.loss[loop]:>+9.4f}{accuracy:>10.4f}"
            f"{accuracy - measured.accuracy[loop]:>+9.4f}{measured.shared_expert_share[loop]:>8.3f}"
        )
