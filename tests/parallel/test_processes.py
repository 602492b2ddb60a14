from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from helpers import run_config

from mythos.parallel.processes import process_group


def test_process_groups_have_the_configured_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine creates groups without a timeout; torch's default is 30 minutes."""
    two = ["parallel=zero1", "parallel.device=cpu", "cluster.num_devices=2"]
    config = run_config("optim=adamw", "data.micro_batch_size=8", "run.validation.num_batches=8", *two)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    default = dist.distributed_c10d.default_pg_timeout
    with process_group(config):
        for group in (dist.group.WORLD, dist.new_group([0])):
            timeout = group._get_backend(torch.device("cpu")).options._timeout
            assert timeout == timedelta(seconds=config.cluster.timeout_seconds) != default
    assert dist.distributed_c10d.default_pg_timeout == default
