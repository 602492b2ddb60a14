"""Versions of a run's dependencies, compared with the ranges that the package declares."""

import platform
import re
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Final

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mythos.config.extras import DISTRIBUTION, install_command
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding
from mythos.doctor.gpus import Gpu

_LEAST_DRIVER: Final = {12: 525, 13: 580}
"""Minimum driver by major version of CUDA; within one, older drivers run newer toolkits
(docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility)."""

_HOPPER: Final = re.compile(r"\bG?H(100|200|20|800)\b")
_FASTER: Final = {"flash-attn-4": "attention within documents", "quack-kernels": "products with SwiGLU"}
"""Packages with faster kernels on Hopper, and the operations that they speed up."""


def versions(config: RunConfig | None, gpus: list[Gpu]) -> list[Finding]:
    """Check Python, every required package of ``pyproject.toml``, DeepSpeed, Triton, and NVIDIA's libraries."""
    try:
        declared = metadata(DISTRIBUTION)
    except PackageNotFoundError:
        advice = f"run {install_command()}, so that the ranges of versions are known"
        return [Finding(check="mythos", status="warning", found="not installed as a package", advice=advice)]
    python = _judge("python", platform.python_version(), SpecifierSet(declared["Requires-Python"] or ""))
    requirements = [Requirement(text) for text in declared.get_all("Requires-Dist") or []]
    needs_deepspeed = config is not None and isinstance(config.parallel, DeepSpeedParallel)
    packages = [_package(one) for one in requirements if one.marker is None]
    packages += [_package(one, is_needed=needs_deepspeed) for one in requirements if one.name == "deepspeed"]
    if any(_HOPPER.search(gpu.name) for gpu in gpus):
        packages += [_faster(one) for one in requirements if one.name in _FASTER]
    return [python, *packages, *_libraries(gpus)]


def driver_of(version_of_driver: str, cuda: str | None) -> Finding:
    """Compare NVIDIA's driver with the CUDA version that torch was built with."""
    least = _LEAST_DRIVER.get(int(cuda.partition(".")[0])) if cuda else None
    expected = f"{least} or later for CUDA {cuda}" if least else ""
    number = re.match(r"\d+", version_of_driver)
    if least and (number is None or int(number[0]) < least):
        advice = "update the driver, or install a torch that was built with an older CUDA"
        return Finding(check="driver", status="fails", found=version_of_driver, expected=expected, advice=advice)
    return Finding(check="driver", status="ok", found=version_of_driver, expected=expected)


def _package(requirement: Requirement, is_needed: bool = True) -> Finding:
    name = requirement.name
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(
            check=name,
            status="fails" if is_needed else "ok",
            found="not installed" if is_needed else "not installed, needed by parallel=ddp and zero1 to zero3 only",
            expected=str(requirement.specifier) if is_needed else "",
            advice=f"run {install_command('deepspeed' if name == 'deepspeed' else '')}" if is_needed else "",
        )
    return _judge(name, found, requirement.specifier)


def _faster(requirement: Requirement) -> Finding:
    name = requirement.name
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "not installed"
    expected = str(requirement.specifier)
    if found != "not installed" and requirement.specifier.contains(found, prereleases=True):
        return Finding(check=name, status="ok", found=found, expected=expected)
    advice = f"{_FASTER[name]} would be faster on this device: run {install_command('flash')}"
    return Finding(check=name, status="warning", found=found, expected=expected, advice=advice)


def _judge(name: str, found: str, range_: SpecifierSet) -> Finding:
    expected = str(range_)
    if range_.contains(found, prereleases=True):
        return Finding(check=name, status="ok", found=found, expected=expected)
    what = f"Python {expected}" if name == "python" else f"pip install '{name}{expected}'"
    return Finding(check=name, status="fails", found=found, expected=expected, advice=f"use {what}")


def _libraries(gpus: list[Gpu]) -> list[Finding]:
    """Libraries that torch bundles, whose versions torch determines; only the driver has a range."""
    if torch.version.cuda is None:
        if not gpus:
            return [Finding(check="CUDA", status="ok", found="none: torch is built for CPUs, and there is no GPU")]
        advice = "install a build of torch with CUDA"
        found = f"torch is built for CPUs, but there are {len(gpus)} GPUs"
        return [Finding(check="CUDA", status="fails", found=found, advice=advice)]
    cudnn = torch.backends.cudnn.version()
    nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else None
    libraries = {
        "CUDA": torch.version.cuda,
        "cuDNN": "none" if cudnn is None else str(cudnn),
        "NCCL": "none" if nccl is None else ".".join(map(str, nccl)),
    }
    findings = [Finding(check=name, status="ok", found=text) for name, text in libraries.items()]
    try:
        findings.append(Finding(check="triton", status="ok", found=version("triton")))
    except PackageNotFoundError:
        advice = "compiled blocks and fused experts need it: pip install triton"
        findings.append(Finding(check="triton", status="warning", found="not installed", advice=advice))
    return [*findings, *(driver_of(gpu.driver, torch.version.cuda) for gpu in gpus[:1])]
