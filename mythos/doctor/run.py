"""What a configuration needs beyond the machine: data, a tracker that lets it in, a layout that fits."""

import netrc
import os
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch

from mythos.account.peak import Device, find_device, named_device
from mythos.account.plan import plan
from mythos.account.search import advice as advice_of_plan
from mythos.account.search import search
from mythos.config.base import ConfigError
from mythos.config.run import RunConfig
from mythos.config.tracking import WandbTracking, check_library
from mythos.data.manifest import check_vocabulary, read_manifest
from mythos.data.shards import files_of, wrong_size
from mythos.data.verification import verify
from mythos.doctor.finding import Finding
from mythos.parallel.device import choose_accelerator

_HASHED_BYTES: Final = 16 * 2**30
"""Data sets up to this size are read as a whole; of larger ones only the sizes are looked at."""


def data(config: RunConfig) -> Finding:
    """Whether every packed file is there and what its manifest says."""
    directories = [Path(directory) for directory in config.data.directories]
    named = ", ".join(map(str, directories))
    try:
        check_vocabulary(config.data.directories, config.model.vocab_size)
        num_bytes, problems = 0, []
        for directory in directories:
            manifest = read_manifest(directory)
            files = [item for split in manifest.splits for item in files_of(directory, manifest, split)]
            num_bytes += sum(size or 0 for _, size, _ in files)
            problems += [problem for path, size, _ in files if (problem := wrong_size(path, size))]
        is_hashed = not problems and num_bytes <= _HASHED_BYTES
        if is_hashed:
            problems = [problem for directory in directories for problem in verify(directory)]
    except ConfigError as error:
        found, _, advice = str(error).rpartition("; ")
        return Finding(check="data", status="fails", found=found or str(error), advice=advice.rstrip("."))
    if problems:
        found, _, advice = problems[0].rpartition("; ")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Finding(check="data", status="fails", found=found + more, advice=advice.rstrip("."))
    how = "every SHA-256 matches" if is_hashed else "sizes match (mythos-data verify reads all of it)"
    return Finding(check="data", status="ok", found=f"{named}: {num_bytes / 1e9:,.2f} GB, {how}")


def tracker(config: RunConfig) -> Finding:
    """Whether the tracker's library is there and, for W&B, a key to log in with, which is never shown or sent."""
    tracking = config.tracking
    try:
        check_library(tracking)
    except ConfigError as error:
        found, _, advice = str(error).rpartition("; ")
        return Finding(check="tracker", status="fails", found=found, advice=advice.rstrip("."))
    if not isinstance(tracking, WandbTracking):
        return Finding(check="tracker", status="ok", found=tracking.kind)
    if tracking.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return Finding(check="tracker", status="ok", found="wandb, offline: no login is needed")
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    place = _login(host)
    if place is None:
        advice = "run wandb login, set WANDB_API_KEY, or set tracking.mode=offline"
        return Finding(check="tracker", status="fails", found=f"wandb, not logged in to {host}", advice=advice)
    return Finding(check="tracker", status="ok", found=f"wandb, a key for {host} in {place} (not tried)")


def layout(config: RunConfig, device_name: str | None) -> Finding:
    """Whether the run fits the device that is here or the one that is named, by the estimate of ``mythos plan``."""
    check = "memory plan"
    if device_name is None and choose_accelerator(config.parallel.device) == "cpu":
        return Finding(check=check, status="ok", found="not estimated for a CPU; name a GPU with --device")
    if device_name is not None:
        device: Device | None = named_device(device_name)
    else:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        device = find_device(properties.name)
        if config.parallel.memory_gb is None:
            config = replace(config, parallel=replace(config.parallel, memory_gb=properties.total_memory / 1e9))
        if device is None:
            advice = "name the nearest one with --device"
            return Finding(check=check, status="warning", found=f"{properties.name} is not in the table", advice=advice)
    assert device is not None
    estimate = plan(config, device)
    gib = f"{estimate.memory.total / 2**30:.1f} of {estimate.memory_bytes / 2**30:.1f} GiB on {device.name}"
    if estimate.fits:
        return Finding(check=check, status="ok", found=f"fits: {gib}")
    advice = advice_of_plan(config, estimate, search(config, device))
    return Finding(check=check, status="fails", found=f"does not fit: {gib}", advice=advice)


def _login(host: str) -> str | None:
    """Where W&B would find a key for this host."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    place = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return str(place) if netrc.netrc(str(place)).authenticators(host) else None
    except (OSError, netrc.NetrcParseError):
        return None
