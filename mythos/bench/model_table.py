"""Tables that ``mythos bench model`` prints."""

from mythos.bench.model import Arm, Draws, Line

_GIB = 2**30


def arms_table(arms: list[Arm], num_kernels: int) -> str:
    """Table with one line per arm, then the parts and the longest kernels of each."""
    header = f"{'arm':14} {'ms':>10} {'80% of rounds':>22} {'tokens/s':>10} {'TFLOP/s':>8} {'MFU':>6}"
    lines = [f"{header} {'ratio':>6} {'80% of rounds':>15} {'resident':>10} {'peak':>10}"]
    for arm in arms:
        spread = f"{arm.time.low_ms:.2f} to {arm.time.high_ms:.2f}"
        mfu = "" if arm.mfu is None else f"{arm.mfu:.1%}"
        ratio, low, high = arm.ratio
        peak = "" if arm.peak_bytes is None else f"{arm.peak_bytes / _GIB:.2f} GiB"
        lines.append(
            f"{arm.name:14} {arm.time.median_ms:10.2f} {spread:>22} {arm.tokens_per_second:10,.0f} "
            f"{arm.tflops:8.3g} {mfu:>6} {ratio:6.3f} {f'{low:.3f} to {high:.3f}':>15} "
            f"{f'{arm.resident_bytes / _GIB:.2f} GiB':>10} {peak:>10}"
        )
    for arm in arms:
        lines.append(
            f"\n{arm.name}: {arm.num_graphs} graphs compiled in the warm-up and {arm.num_recompiled} after it; "
            f"the warm-up took {arm.warmup_seconds:.1f} s more than its steps"
        )
        lines += _parts(arm)
        if arm.profile is not None:
            busy_ms = sum(kernel.milliseconds for kernel in arm.profile.kernels)
            lines.append(f"  {busy_ms:.2f} ms in kernels, {arm.profile.span_ms:.2f} ms from first to last")
            for kernel in arm.profile.kernels[:num_kernels]:
                lines.append(f"  {kernel.milliseconds:9.3f} ms {kernel.launches:7.1f}x  {kernel.name[:100]}")
    return "\n".join(lines)


def _parts(arm: Arm) -> list[str]:
    """One line per part, and their sum; empty where the parts were not timed."""
    if not arm.part_ms:
        return []
    lines, total_ms = [], sum(arm.part_ms.values())
    for part, milliseconds in arm.part_ms.items():
        rate = f"{arm.part_tflops[part]:9.3g} TFLOP/s" if arm.part_tflops[part] else ""
        lines.append(f"  {part:22} {milliseconds:10.2f} ms {milliseconds / total_ms:6.1%} {rate}".rstrip())
    return [*lines, f"  {'sum of parts':22} {total_ms:10.2f} ms"]


def line_table(line: Line) -> str:
    """Table of the step time by number of loops."""
    lines = ["step time by number of loops T, all with gradients"]
    for num_loops, time in line.time.items():
        fitted_ms = line.outer_ms + line.loop_ms * num_loops
        lines.append(
            f"  T = {num_loops:<3} {time.median_ms:10.2f} ms ({time.low_ms:.2f} to {time.high_ms:.2f}), "
            f"{time.median_ms / fitted_ms - 1:+.2%} from the line"
        )
    fitted = f"{line.outer_ms:.2f} ms + {line.loop_ms:.2f} ms per loop"
    lines.append(f"  {fitted}; largest deviation {line.largest_deviation:.2%}")
    return "\n".join(lines)


def draws_line(draws: Draws) -> str:
    """One line on the steps of drawn depth."""
    return (
        f"{draws.num_steps} steps of drawn depth, T {draws.mean_loops:.2f} on average and {draws.deepest} at most: "
        f"{draws.tokens_per_second:,.0f} tokens/s, {draws.tflops:.3g} TFLOP/s, {draws.num_recompiled} graphs compiled"
    )
