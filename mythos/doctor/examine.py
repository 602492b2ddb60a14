"""Run all checks: of each node, between the ranks, and of the run."""

import os
import platform
from dataclasses import replace
from typing import Final

import torch.distributed as dist

from mythos.config.run import RunConfig
from mythos.doctor.finding import Finding, joined
from mythos.doctor.gpus import devices, list_gpus
from mythos.doctor.host import caches, host_memory, open_files, shared_memory
from mythos.doctor.network import bandwidth, clocks
from mythos.doctor.plugins import installed_plugins
from mythos.doctor.run import data, layout, tracker
from mythos.doctor.storage import disk
from mythos.doctor.versions import versions
from mythos.parallel.device import choose_accelerator
from mythos.parallel.launcher import check_launcher, is_first_rank
from mythos.parallel.processes import process_group

_TIMEOUT_SECONDS: Final = 120
"""Time that the ranks have to form a process group."""


def examine(config: RunConfig | None, device_name: str | None) -> list[Finding]:
    """The findings of all checks; complete on rank 0 only, but called on every rank.

    Args:
        config: configuration of the run; None examines this machine only.
        device_name: the GPU to plan for, if it is not the GPU of this machine.

    Raises:
        ConfigError: the launcher started another number of processes, or the device is unknown.
    """
    if config is None:
        return examine_machine(None)
    if config.cluster.world_size == 1:
        return [*examine_machine(config), *examine_run(config, device_name)]
    check_launcher(config.cluster)
    findings = _examine_ranks(config)
    return [*findings, *examine_run(config, device_name)] if is_first_rank() else []


def examine_machine(config: RunConfig | None) -> list[Finding]:
    """The findings about this node."""
    gpus = list_gpus()
    on_cpu = choose_accelerator("auto" if config is None else config.parallel.device) == "cpu"
    return [
        *versions(config, gpus),
        *installed_plugins(),
        *devices(config, gpus),
        open_files(config),
        shared_memory(config),
        host_memory(config, on_cpu),
        *caches(),
        *disk(config),
    ]


def examine_run(config: RunConfig, device_name: str | None) -> list[Finding]:
    """The findings that are the same for all nodes."""
    return [data(config), tracker(config), layout(config, device_name)]


def _examine_ranks(config: RunConfig) -> list[Finding]:
    """The findings of the first rank of each node, and those between the ranks."""
    short = replace(config.cluster, timeout_seconds=min(config.cluster.timeout_seconds, _TIMEOUT_SECONDS))
    own = examine_machine(config) if os.environ["LOCAL_RANK"] == "0" else []
    try:
        with process_group(replace(config, cluster=short)):
            gathered: list[tuple[str, list[Finding]]] = [("", [])] * config.cluster.world_size
            dist.all_gather_object(gathered, (platform.node(), own))
            between = [*bandwidth(config), *clocks(config)]
    except RuntimeError as error:
        advice = (
            "all nodes must reach MASTER_ADDR at MASTER_PORT, over cluster.network_interface where there are several"
        )
        found = " ".join(str(error).split())[:300]
        return [*own, Finding(check="process group", status="fails", found=found, advice=advice)]
    return [*joined([(host, findings) for host, findings in gathered if findings]), *between]
