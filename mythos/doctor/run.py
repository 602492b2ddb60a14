"""Checks of a run's configuration: data, login to the tracker, a layout that fits."""

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
from mythos.data.epochs import check_epochs
from mythos.data.manifest import check_vocabulary, read_manifest
from mythos.data.shards import files_of, wrong_size
from mythos.data.verification import verify
from mythos.doctor.finding import Finding
from mythos.parallel.device import choose_accelerator

_HASHED_BYTES: Final = 16 * 2**30
"""Data sets up to this size are hashed; for larger ones only the file sizes are checked."""


def data(config: RunConfig) -> Finding:
    """Check that every packed file exists and matches its manifest, and that there are enough tokens for the run."""
    directories = [Path(directory) for directory in config.data.directories]
    names = ", ".join(map(str, directories))
    try:
        check_vocabulary(config.data.directories, config.model.vocab_size)
        num_bytes, problems = 0, []
        for directory in directories:
            manifest = read_manifest(directory)
            files = [item for split in manifest.splits for item in files_of(directory, manifest, split)]
            num_bytes += sum(size or 0 for _, size, _ in files)
            problems += [problem for path, size, _ in files if (problem := wrong_size(path, size))]
        if not problems:
            check_epochs(config)
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
    result = "every SHA-256 matches" if is_hashed else "sizes match (mythos-data verify hashes all files)"
    return Finding(check="data", status="ok", found=f"{names}: {num_bytes / 1e9:,.2f} GB, {result}")


def tracker(config: RunConfig) -> Finding:
    """Check that the tracker's library is installed and that there is a key for W&B, which is never shown or sent."""
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
    source = _key_source(host)
    if source is None:
        advice = "run wandb login, set WANDB_API_KEY, or set tracking.mode=offline"
        return Finding(check="tracker", status="fails", found=f"wandb, not logged in to {host}", advice=advice)
    return Finding(check="tracker", status="ok", found=f"wandb, a key for {host} in {source} (not tested)")


def layout(config: RunConfig, device_name: str | None) -> Finding:
    """Check whether the run fits this machine's device, or the named one, by the estimate of ``mythos plan``."""
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


def _key_source(host: str) -> str | None:
    """The variable or file that has W&B's key for this host."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return str(path) if netrc.netrc(str(path)).authenticators(host) else None
    except (OSError, netrc.NetrcParseError):
        return None
