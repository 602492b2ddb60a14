"""Benchmark whole training steps of several alternating variants: time, throughput, parts, memory, compilations."""

import gc
import shlex
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mythos.account.flops import run_flops
from mythos.account.peak import peak_flops
from mythos.bench.parts import part_flops, time_parts
from mythos.bench.step import Step, fixed
from mythos.bench.timing import Profile, Spread, by_kernel, rounds, spread
from mythos.config.base import ConfigError
from mythos.config.depth import FixedDepth, PoissonDepth
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.loop.policy import draw_many
from mythos.parallel.device import choose_accelerator

MODELS = {"dense-d1024": "190m", "moe-d2048": "2b-a570m", "moe-d1024": "560m-a210m"}
"""Files of ``conf/model`` by benchmark name."""
COMMON = (
    *("depth=fixed", "depth.num_loops=8", "depth.num_grad_loops=4"),
    *("data.seq_len=2048", "data.batch_size=32", "data.micro_batch_size=8"),
    *("parallel.precision=bf16", "parallel.compile=true", "model.head.chunk_tokens=65536"),
)
"""Overrides that precede the user's, for the named models."""


class BenchOptions(NamedTuple):
    """How often to measure, and what."""

    num_rounds: int
    num_steps: int
    """Steps of each variant in a round on a GPU, queued without synchronising between them."""
    num_warmup: int
    mean_document: int
    """Mean length of the documents in tokens; 0 for none."""
    with_kernels: bool = False
    """List CUDA kernels."""
    with_parts: bool = True
    """Time the parts of a step as well, which recompiles and takes three more steps of each variant."""


class Arm(NamedTuple):
    """Measurements of one variant."""

    name: str
    time: Spread
    """Time of one optimiser step."""
    tokens_per_second: float
    tflops: float
    """10^12 model FLOPs per second, as ``account.flops`` counts them."""
    mfu: float | None
    """Share of the device's peak FLOPs; None for a device whose peak is unknown."""
    ratio: Spread
    """The first arm's time per token over this one's, round by round; above 1 is faster than the first."""
    part_ms: dict[str, float]
    part_tflops: dict[str, float]
    resident_bytes: int
    """Bytes of weights, optimiser state and batches."""
    peak_bytes: int | None
    """Peak bytes allocated in a step, without those of the other arms; None without CUDA."""
    warmup_seconds: float
    """Time of the warm-up minus as many steps at the median: compilation, first allocations, kernel selection."""
    num_graphs: int
    """Graphs compiled in the warm-up."""
    num_recompiled: int
    """Graphs compiled in the timed rounds of all arms."""
    profile: Profile | None

    def as_dict(self) -> dict[str, Any]:
        """The measurements by name, for JSON."""
        record = self._asdict() | {"time": self.time._asdict()}
        record["ratio"] = dict(zip(("median", "low", "high"), self.ratio, strict=True))
        if self.profile is not None:
            kernels = [kernel._asdict() for kernel in self.profile.kernels]
            record["profile"] = {"span_ms": self.profile.span_ms, "kernels": kernels}
        return record


class Line(NamedTuple):
    """Step time by number of loops, all with gradients, and the straight line fitted to the medians."""

    time: dict[int, Spread]
    loop_ms: float
    """Slope of the line: milliseconds per loop."""
    outer_ms: float
    """Value of the line at T = 0."""
    largest_deviation: float
    """Largest distance of a median from the line, relative to the line."""

    def as_dict(self) -> dict[str, Any]:
        """The measurements by name, for JSON."""
        return self._asdict() | {"time": {str(loops): each._asdict() for loops, each in self.time.items()}}


class Draws(NamedTuple):
    """Throughput of steps whose number of loops is drawn as in training."""

    num_steps: int
    mean_loops: float
    deepest: int
    tokens_per_second: float
    tflops: float
    num_recompiled: int


def overrides_of(words: list[str]) -> list[str]:
    """Overrides in which a leading name of ``MODELS`` is replaced by its overrides.

    Raises:
        ConfigError: the name is unknown.
    """
    if not words or "=" in words[0]:
        return words
    if words[0] not in MODELS:
        raise ConfigError(f"{words[0]!r} is no benchmark; choose from {', '.join(MODELS)}, or write model=NAME.")
    return [f"model={MODELS[words[0]]}", *COMMON, *words[1:]]


class Variant(NamedTuple):
    """Configuration of one arm."""

    config: RunConfig
    is_balanced: bool = False
    """Route the same number of tokens to every expert."""


def arms_of(
    words: list[str], compared: list[str], with_naive: bool, with_balanced: bool, config_dir: Path | None
) -> dict[str, Variant]:
    """The arms by name, the baseline first.

    Args:
        words: an optional name of ``MODELS``, then overrides.
        compared: ``NAME=OVERRIDES``, overrides separated by blanks; each follows ``words``.

    Raises:
        ConfigError: a configuration is wrong, or an option does not apply to it.
    """
    overrides = overrides_of(words)
    if compared:
        if with_naive or with_balanced:
            raise ConfigError("--compare names all variants; leave out --naive and --balanced.")
        arms = {}
        for text in compared:
            name, separator, more = text.partition("=")
            if not separator or name in arms:
                raise ConfigError(f"--compare: {text!r} is not understood; write a new NAME='key=value key=value'.")
            arms[name] = Variant(load([*overrides, *shlex.split(more)], config_dir))
        return arms
    config = load(overrides, config_dir)
    arms = {"training": Variant(config)}
    if with_balanced:
        if not config.model.is_moe:
            raise ConfigError("--balanced: model.core_ffn.kind is dense, which routes nothing; remove the option.")
        arms["balanced"] = Variant(config, is_balanced=True)
    if with_naive:
        arms["naive"] = Variant(naive(config))
    return arms


def check_options(options: BenchOptions, loops: list[int], num_draws: int = 0, is_apart: bool = False) -> None:
    """Check that the options can be measured together.

    Raises:
        ConfigError: a count is too small, or two options exclude each other.
    """
    numbers = {"--rounds": options.num_rounds, "--steps": options.num_steps, "--warmup": options.num_warmup}
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name} is {number}; give 1 or more.")
    if options.mean_document < 0:
        raise ConfigError(f"--documents is {options.mean_document}; give a mean length, or 0 for none.")
    if options.with_kernels and not torch.cuda.is_available():
        raise ConfigError("--kernels lists CUDA kernels, but torch sees no CUDA device.")
    if loops and (len(set(loops)) < 2 or min(loops) < 1):
        raise ConfigError(f"--num-loops is {' '.join(map(str, loops))}; a line needs two different loop counts.")
    if is_apart and (loops or num_draws):
        raise ConfigError(
            "--apart frees each variant once it is timed; give --num-loops and --num-drawn-steps without it."
        )


def naive(config: RunConfig) -> RunConfig:
    """The same model in plain operations: one expert after the other, no compilation, all logits at once.

    Its step is one micro-batch, because it takes seconds.
    """
    model, num_tokens = config.model, config.data.micro_batch_size * config.data.seq_len
    data = replace(config.data, batch_size=config.data.micro_batch_size)
    model = replace(model, head=replace(model.head, chunk_tokens=num_tokens))
    if model.core_ffn.kind == "moe":
        model = replace(model, core_ffn=replace(model.core_ffn, dispatch="naive"))
    return replace(config, model=model, data=data, parallel=replace(config.parallel, compile=False))


def build(variant: Variant, options: BenchOptions) -> Step:
    """A step of the variant with a fixed number of loops, on its device."""
    config = fixed(variant.config)
    return Step(config, device_of(config), options.mean_document, variant.is_balanced)


def device_of(config: RunConfig) -> torch.device:
    """The device that the configuration selects."""
    return torch.device("cuda" if choose_accelerator(config.parallel.device) == "gpu" else "cpu")


def measure(steps: dict[str, Step], options: BenchOptions) -> list[Arm]:
    """Time the steps alternately, round by round; ratios are relative to the first."""
    devices = {step.device for step in steps.values()}
    if len(devices) > 1:
        raise ConfigError("the variants run on different devices; give all of them the same parallel.device.")
    (device,) = devices
    # All arms compile one function, the block's forward, and torch limits the number of its versions.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * len(steps))
    started = {}
    for name, step in steps.items():
        started[name] = _warm_up(step, options.num_warmup)
        print(f"{name}: warmed up in {started[name][0]:.0f} s", file=sys.stderr, flush=True)
    before = num_graphs()
    times = rounds({name: step.take for name, step in steps.items()}, device, options.num_rounds, options.num_steps)
    num_recompiled = num_graphs() - before
    first = next(iter(steps))
    arms = []
    for name, step in steps.items():
        token_ratio = step.num_tokens / steps[first].num_tokens
        time = spread(times[name])
        flops = _flops(step)
        seconds, num_compiled = started[name]
        peak = peak_flops(torch.cuda.get_device_name(device), precision(step)) if device.type == "cuda" else None
        rate = sum(flops.values()) / time.median_ms * 1e3
        peak_bytes = step.peak_bytes()
        profile = by_kernel(step.take, num_calls=1) if options.with_kernels else None
        part_ms = time_parts(step, num_steps=2) if options.with_parts else {}
        arms.append(
            Arm(
                name=name,
                time=time,
                tokens_per_second=step.num_tokens / time.median_ms * 1e3,
                tflops=rate / 1e12,
                mfu=None if peak is None else rate / peak,
                ratio=spread([token_ratio * ms / own_ms for ms, own_ms in zip(times[first], times[name], strict=True)]),
                part_ms=part_ms,
                part_tflops={
                    part: flops[part] / each_ms / 1e9 if each_ms else 0.0 for part, each_ms in part_ms.items()
                },
                resident_bytes=step.resident_bytes(),
                peak_bytes=peak_bytes,
                warmup_seconds=max(0.0, seconds - options.num_warmup * time.median_ms / 1e3),
                num_graphs=num_compiled,
                num_recompiled=num_recompiled,
                profile=profile,
            )
        )
    return arms


def measure_apart(variants: dict[str, Variant], options: BenchOptions) -> list[Arm]:
    """Time one variant after the other, each alone in memory, for models of which two do not fit.

    Clocks may change between variants, so a ratio ranges from slowest over fastest rounds to fastest over slowest.
    """
    arms: list[Arm] = []
    for name, variant in variants.items():
        steps = {name: build(variant, options)}
        num_tokens = steps[name].num_tokens
        (arm,) = measure(steps, options)
        del steps
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if arms:
            first, own = arms[0].time, arm.time
            token_ratio = num_tokens / (arms[0].tokens_per_second * first.median_ms / 1e3)
            pairs = ((first.median_ms, own.median_ms), (first.low_ms, own.high_ms), (first.high_ms, own.low_ms))
            arm = arm._replace(ratio=Spread(*(token_ratio * one_ms / other_ms for one_ms, other_ms in pairs)))
        arms.append(arm)
    return arms


def time_by_num_loops(step: Step, loops: list[int], options: BenchOptions) -> Line:
    """Time the step alternately at each number of loops, all with gradients."""

    def at(num_loops: int) -> None:
        step.set_depth(num_loops, num_loops)
        step()

    calls = {str(num_loops): lambda num_loops=num_loops: at(num_loops) for num_loops in loops}
    for call in calls.values():
        for _ in range(options.num_warmup):
            call()
    times = rounds(calls, step.device, options.num_rounds, options.num_steps)
    spreads = {num_loops: spread(times[str(num_loops)]) for num_loops in loops}
    return fit(spreads)


def fit(times: dict[int, Spread]) -> Line:
    """Fit a straight line to the medians by least squares."""
    medians = np.array([each.median_ms for each in times.values()])
    slope, constant = np.polyfit(list(times), medians, 1)
    line = constant + slope * np.array(list(times))
    return Line(times, float(slope), float(constant), float(np.abs(medians / line - 1).max()))


def time_drawn_steps(step: Step, config: RunConfig, num_steps: int) -> Draws:
    """Time steps whose T the configuration's policy draws, or a Poisson policy of the same mean where T is fixed."""
    depth = config.depth
    if isinstance(depth, FixedDepth):
        depth = PoissonDepth(mean=depth.mean, num_grad_loops=depth.grad_loops, max_loops=max(32, 2 * depth.num_loops))
    step.module.config = replace(step.config, depth=depth)
    loops = draw_many(depth, config.run.seed, 0, num_steps)
    before = num_graphs()
    _synchronize(step.device)
    start = time.perf_counter()
    for index in range(num_steps):
        step.trainer.global_step = index
        step()
    _synchronize(step.device)
    seconds = time.perf_counter() - start
    mean_grad_loops = float(np.minimum(loops, depth.grad_loops).mean())
    per_token = run_flops(config, float(loops.mean()), mean_grad_loops).total
    rate = num_steps * step.num_tokens / seconds
    recompiled = num_graphs() - before
    return Draws(num_steps, float(loops.mean()), int(loops.max()), rate, rate * per_token / 1e12, recompiled)


def num_graphs() -> int:
    """Number of graphs that this process has compiled so far."""
    counters: dict[str, Counter[str]] = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"]


def precision(step: Step) -> str:
    """Precision of the step, ``fp32`` or ``bf16``."""
    return str(step.config.parallel.precision)


def _warm_up(step: Step, num_steps: int) -> tuple[float, int]:
    """Take the first steps and return their seconds and the number of graphs that they compiled."""
    before = num_graphs()
    start = time.perf_counter()
    for _ in range(num_steps):
        step()
    _synchronize(step.device)
    return time.perf_counter() - start, num_graphs() - before


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _flops(step: Step) -> dict[str, float]:
    depth = step.config.depth
    assert isinstance(depth, FixedDepth)
    return part_flops(step.config, depth.num_loops, depth.grad_loops)
