"""Compare one mixture-of-experts layer with a dense SwiGLU of equal active FLOPs, forward and backward."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mythos.bench.timing import Profile, Spread, alternate, by_kernel
from mythos.config.base import ConfigError
from mythos.config.model import MoEConfig
from mythos.layers.ffn import SwiGLU
from mythos.layers.shared import share
from mythos.moe import dispatch
from mythos.moe.balance import load_violation
from mythos.moe.layer import MoE

M = TypeVar("M", bound=nn.Module)

SKEW = 0.25
"""Standard deviation of the selection bias of the skewed arm; sigmoid scores lie between 0 and 1."""


class Shape(NamedTuple):
    """The sizes of a layer."""

    dim: int
    num_experts: int
    hidden_dim: int
    num_active: int
    num_shared: int

    def __str__(self) -> str:
        return f"d{self.dim}-e{self.num_experts}-f{self.hidden_dim}-k{self.num_active}-s{self.num_shared}"

    @property
    def active_hidden_dim(self) -> int:
        """Hidden width of the experts that one token is routed to, shared experts included."""
        return (self.num_active + self.num_shared) * self.hidden_dim

    def num_flops(self, num_tokens: int) -> int:
        """FLOPs of the experts' matrix products, forward and backward, without the router."""
        return 18 * num_tokens * self.dim * self.active_hidden_dim


SHAPES = (Shape(2048, 64, 1024, 8, 1), Shape(2048, 128, 512, 8, 2), Shape(1024, 64, 512, 8, 1))


SEPARATE_PRODUCTS = "dense/products"
"""Name of the arm of a dense layer without the fused operation of ``layers.swiglu``."""

PATHS = {"grouped": dispatch.grouped, "plain": dispatch.plain, "naive": dispatch.naive}
ROUTINGS = ("natural", "balanced", "skewed")


class Setting(NamedTuple):
    """Options that all arms share."""

    shape: Shape
    num_tokens: int
    device: torch.device
    precision: str
    """``fp32``; ``bf16`` for fp32 weights under autocast; ``bf16-weights`` for weights that an engine keeps in bf16."""
    compile: bool
    share: bool = False
    """Whether all calls share bf16 weight copies and gradient accumulators, as the loops of a step do."""


class Arm(NamedTuple):
    """Measurements of one variant; the last four are None where they do not apply."""

    name: str
    time: Spread
    tflops: float
    """10^12 floating-point operations per second, by ``Shape.num_flops``."""
    ratio: float
    """The dense layer's time over this one's."""
    violation: float | None
    """Largest load over the mean load, minus one."""
    saved_bytes: int | None
    """Bytes of activations allocated between forward and backward, without the output and its gradient."""
    peak_bytes: int | None
    """Peak bytes allocated, without weights and input but with gradients."""
    profile: Profile | None

    def as_dict(self) -> dict[str, Any]:
        """The measurements by name, for JSON."""
        record = self._asdict() | {"time": self.time._asdict()}
        if self.profile is not None:
            kernels = [kernel._asdict() for kernel in self.profile.kernels]
            record["profile"] = {"span_ms": self.profile.span_ms, "kernels": kernels}
        return record


def parse_shape(text: str) -> Shape:
    """Parse a shape such as ``d2048-e64-f1024-k8-s1``.

    Raises:
        ConfigError: the text has another format.
    """
    match = re.fullmatch(r"d(\d+)-e(\d+)-f(\d+)-k(\d+)-s(\d+)", text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not a shape; write d2048-e64-f1024-k8-s1 (width, experts, their width, top-k, shared)."
        )
    return Shape(*map(int, match.groups()))


def check(setting: Setting, arms: list[str], with_kernels: bool) -> None:
    """Check that the arms can be measured in this setting.

    Raises:
        ConfigError: a size, the precision, an option or an arm's name does not fit.
    """
    shape = setting.shape
    if shape.num_active > shape.num_experts:
        raise ConfigError(
            f"{shape} has {shape.num_active} active experts of {shape.num_experts}; "
            "a token cannot be routed to more experts than there are."
        )
    if shape.dim % 8 or shape.hidden_dim % 8:
        raise ConfigError(
            f"{shape} has widths {shape.dim} and {shape.hidden_dim}; grouped products need multiples of 8."
        )
    if setting.compile and setting.precision == "fp32":
        raise ConfigError("torch compiles grouped products in bf16 only; add --precision bf16 or leave --compile out.")
    if with_kernels and setting.device.type != "cuda":
        raise ConfigError("--kernels lists CUDA kernels, but torch sees no CUDA device.")
    for arm in arms:
        _check_arm(arm)


def _check_arm(name: str) -> None:
    path, _, routing = name.partition("/")
    if name != SEPARATE_PRODUCTS and (path not in PATHS or routing not in ROUTINGS):
        raise ConfigError(
            f"{name!r} is not an arm; write PATH/ROUTING, PATH from {', '.join(PATHS)} and ROUTING from "
            f"{', '.join(ROUTINGS)}, or {SEPARATE_PRODUCTS}."
        )


def table(arms: list[Arm], num_kernels: int) -> str:
    """Table with one line per arm, then the longest kernels of each."""
    lines = [
        f"{'arm':18} {'ms':>8} {'80% of rounds':>17} {'TFLOP/s':>8} {'ratio':>6} {'load':>6} {'saved':>9} {'peak':>9}"
    ]
    for arm in arms:
        load = "" if arm.violation is None else f"+{arm.violation:.0%}"
        saved, peak = (
            ("" if size is None else f"{size / 2**20:.0f} MiB") for size in (arm.saved_bytes, arm.peak_bytes)
        )
        spread = f"{arm.time.low_ms:.3f} to {arm.time.high_ms:.3f}"
        lines.append(
            f"{arm.name:18} {arm.time.median_ms:8.3f} {spread:>17} {arm.tflops:8.2f} {arm.ratio:6.3f} "
            f"{load:>6} {saved:>9} {peak:>9}"
        )
    for arm in arms:
        if arm.profile is not None:
            busy_ms = sum(kernel.milliseconds for kernel in arm.profile.kernels)
            lines.append(f"{arm.name}: {busy_ms:.3f} ms in kernels, {arm.profile.span_ms:.3f} ms from first to last")
            for kernel in arm.profile.kernels[:num_kernels]:
                lines.append(f"  {kernel.milliseconds:7.3f} ms {kernel.launches:5.1f}x  {kernel.name[:100]}")
    return "\n".join(lines)


def measure(setting: Setting, arms: list[str], num_rounds: int, num_warmup: int, with_kernels: bool) -> list[Arm]:
    """Time the dense layer and the named arms alternately."""
    calls, violations = {}, {}
    for name in ("dense", *arms):
        forward, violations[name] = _forward(setting, name)
        calls[name] = _Step(setting, forward)
    spreads = alternate(calls, setting.device, num_rounds, num_warmup)
    results = []
    for name, step in calls.items():
        saved, peak = step.memory()
        results.append(
            Arm(
                name=name,
                time=spreads[name],
                tflops=setting.shape.num_flops(setting.num_tokens) / spreads[name].median_ms / 1e9,
                ratio=spreads["dense"].median_ms / spreads[name].median_ms,
                violation=violations[name],
                saved_bytes=saved,
                peak_bytes=peak,
                profile=by_kernel(step) if with_kernels else None,
            )
        )
    return results


class _SeparateProducts(SwiGLU):
    """SwiGLU that shares the weights of each matrix product separately."""

    def share(self, dtype: torch.dtype) -> None:
        """Start sharing, as ``Sharing`` specifies."""
        self.share_products(dtype)


class _Step:
    """Runs forward and backward with a fixed input and a fixed gradient of the output."""

    def __init__(self, setting: Setting, forward: tuple[nn.Module, Callable[[Tensor], Tensor]]) -> None:
        self.module, self.forward = forward
        self.device, self.autocast, self.shares = setting.device, setting.precision == "bf16", setting.share
        generator = torch.Generator(setting.device).manual_seed(1)
        dtype = torch.bfloat16 if setting.precision == "bf16-weights" else torch.float32
        shape = (1, setting.num_tokens, setting.shape.dim)
        self.x_BSD = torch.randn(shape, generator=generator, device=setting.device, dtype=dtype).requires_grad_()
        dtype = torch.float32 if setting.precision == "fp32" else torch.bfloat16
        self.grad_BSD = torch.randn(shape, generator=generator, device=setting.device, dtype=dtype)

    def __call__(self) -> None:
        self._forward().backward(self.grad_BSD)
        self._clear()

    def memory(self) -> tuple[int | None, int | None]:
        """Bytes saved for the backward, and peak bytes."""
        if self.device.type != "cuda":
            return None, None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        y_BSD = self._forward()
        saved = torch.cuda.memory_allocated() - before - y_BSD.nbytes
        y_BSD.backward(self.grad_BSD)
        peak = torch.cuda.max_memory_allocated() - before
        self._clear()
        return saved, peak

    def _forward(self) -> Tensor:
        if self.shares:
            share(self.module)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.forward(self.x_BSD)

    def _clear(self) -> None:
        self.x_BSD.grad = None
        if not self.shares:
            self.module.zero_grad(set_to_none=True)


def _forward(setting: Setting, name: str) -> tuple[tuple[nn.Module, Callable[[Tensor], Tensor]], float | None]:
    """The module of an arm, its forward, and the load violation of its routing."""
    shape, device = setting.shape, setting.device
    if name in ("dense", SEPARATE_PRODUCTS):
        kind = SwiGLU if name == "dense" else _SeparateProducts
        dense = _initialized(kind(shape.dim, shape.active_hidden_dim), setting)
        return (dense, torch.compile(dense, dynamic=False) if setting.compile else dense), None
    path, _, routing = name.partition("/")
    config = MoEConfig(
        num_experts=shape.num_experts,
        num_active=shape.num_active,
        hidden_dim=shape.hidden_dim,
        num_shared=shape.num_shared,
    )
    layer = _initialized(MoE(config, shape.dim), setting)
    layer.run_experts = PATHS[path]
    bias_E = torch.zeros(shape.num_experts)
    expert_indices_NK = None
    if routing == "skewed":
        bias_E = SKEW * torch.randn(shape.num_experts, generator=torch.Generator().manual_seed(2))
    if routing == "balanced":
        expert_indices_NK = torch.arange(setting.num_tokens * shape.num_active, device=device).view(
            setting.num_tokens, -1
        )
        expert_indices_NK = (expert_indices_NK % shape.num_experts).to(torch.int16)
    bias_E = bias_E.to(device)
    run = torch.compile(layer, dynamic=False) if setting.compile else layer

    def forward(x_BSD: Tensor) -> Tensor:
        return run(x_BSD, bias_E, expert_indices_NK)[0]

    x_BSD = torch.randn(
        1, setting.num_tokens, shape.dim, generator=torch.Generator(device).manual_seed(1), device=device
    )
    with torch.no_grad():
        stats = layer.router(x_BSD, bias_E, expert_indices_NK)[1]
    return (layer, forward), load_violation(stats.counts_E).item()


def _initialized(module: M, setting: Setting) -> M:
    """The module on the device, with random weights of a scale that keeps activations near one."""
    module.to(setting.device)
    generator = torch.Generator(setting.device).manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return module.to(torch.bfloat16) if setting.precision == "bf16-weights" else module
