"""Runs cases one after the other in ranks of this machine, and writes the results.

A case is a list of overrides and of options of ``PATCHES``. For each, rank 0 saves ``<folder>/<index>.pt``: losses and
expert counts of every step, summed over ranks and micro-batches, in fp64 and int64. Weights are in the run's last
checkpoint.
"""

import faulthandler
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only

from mythos.callbacks.base import StepCallback, StepResult
from mythos.checkpoint.fragments import FragmentReader
from mythos.config.load import load
from mythos.config.run import RunConfig
from mythos.layers import ffn, projection, shared, swiglu
from mythos.moe import experts
from mythos.optim.groups import parameter_groups
from mythos.parallel.launcher import rank_environments
from mythos.parallel.processes import on_first_rank, process_group
from mythos.train import build, module
from mythos.train.run_directory import prepare

SGD_RATE = 2.0**14
"""Large enough that the rounding of a step is that of the gradient, not of the weight."""


class Collect(StepCallback):
    """Collects the losses and expert counts of each step, summed over ranks."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.counts: list[torch.Tensor] = []

    def on_step_end(self, trainer: Any, module: Any, result: StepResult) -> None:
        loss = torch.stack([one.nll for one in result.observations]).double().sum()
        stats = [one.router_stats for one in result.observations if one.router_stats is not None]
        counts = torch.stack([one.counts_E for one in stats]).sum(0) if stats else torch.zeros(1, dtype=torch.int64)
        if dist.is_initialized():
            dist.all_reduce(loss)
            dist.all_reduce(counts)
        self.losses.append(loss.item())
        self.counts.append(counts.cpu())


def run(config: RunConfig, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Train with a collector among the callbacks."""
    collect = Collect()
    build_trainer = build.build_trainer

    def build_with_collector(*arguments: Any) -> Any:
        trainer = build_trainer(*arguments)
        trainer.callbacks.insert(0, collect)
        return trainer

    patch.setattr(build, "build_trainer", build_with_collector)
    build.train(config, on_first_rank(lambda: prepare(config)))
    return {"losses": collect.losses, "counts": collect.counts}


def use_sgd(patch: pytest.MonkeyPatch) -> None:
    """Optimise by plain gradient descent, so that gradients follow from weights."""

    def gradient_descent(config: Any, named: Any, group_of: Any) -> torch.optim.Optimizer:
        groups = [group | {"lr": SGD_RATE, "weight_decay": 0.0} for group in parameter_groups(named, config, group_of)]
        return torch.optim.SGD(groups)

    patch.setattr(module, "build_optimizer", gradient_descent)


def forget(what: str, patch: pytest.MonkeyPatch) -> None:
    """Make the last rank read zeros for a part of the checkpoint, as a faulty conversion would."""
    read = FragmentReader.read

    def read_with_gaps(self: FragmentReader, name: str, field: str, *span: Any) -> torch.Tensor:
        value_N = read(self, name, field, *span)
        is_part = ".experts." in name if what == "experts" else field == "exp_avg"
        return torch.zeros_like(value_N) if is_part and os.environ["RANK"] == "1" else value_N

    patch.setattr(FragmentReader, "read", read_with_gaps)


def inject_nan(patch: pytest.MonkeyPatch) -> None:
    """Make the loss of the last rank NaN in the third step."""
    objective = module.objective

    def with_nan(config: RunConfig, output: Any, batch: Any, plan: Any, terms: Any) -> Any:
        loss = objective(config, output, batch, plan, terms)
        is_third = int(batch.sample_ids_B[0]) // config.data.batch_size == 2
        is_last_rank = dist.get_rank() == dist.get_world_size() - 1
        return loss._replace(total=loss.total * torch.nan) if is_third and is_last_rank else loss

    patch.setattr(module, "objective", with_nan)


def share_weights(patch: pytest.MonkeyPatch) -> None:
    """Share weight copies and gradient accumulators between loops as on a GPU in bf16, but in fp32.

    Kernels are replaced by their reference implementations.
    """
    for user in (ffn, projection, experts):
        patch.setattr(user, "can_accumulate", lambda weight, dtype: weight.requires_grad)
    patch.setattr(swiglu, "is_available", lambda *_: True)
    patch.setattr(experts.Experts, "is_fused", lambda *_: True)
    patch.setattr(module.MythosModule, "on_train_batch_start", lambda self, *_: shared.share(self.model, torch.float32))


PATCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "--sgd": use_sgd,
    "--share": share_weights,
    "--nan": inject_nan,
    "--forget-experts": partial(forget, "experts"),
    "--forget-moments": partial(forget, "moments"),
}


def run_rank(folder: Path, cases: list[list[str]], configs: list[RunConfig], environment: dict[str, str]) -> NoReturn:
    """Run all cases as one rank, and end this process."""
    faulthandler.dump_traceback_later(1500, exit=True)  # ends a hang before pytest does
    os.environ.update(environment)
    rank_zero_only.rank = int(environment.get("RANK", 0))  # Lightning read the environment in the first process
    with process_group(configs[0]):
        for index, (config, case) in enumerate(zip(configs, cases, strict=True)):
            with pytest.MonkeyPatch.context() as patch:
                for option, apply in PATCHES.items():
                    if option in case:
                        apply(patch)
                result = run(config, patch)
            if os.environ.get("RANK", "0") == "0":
                torch.save(result, folder / f"{index}.pt")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Fork the ranks, which so share what this process has imported; the first failure ends all."""
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    configs = [load([word for word in case if word not in PATCHES]) for case in cases]
    cluster = configs[0].cluster
    environments = rank_environments(cluster, 0.0) if cluster.num_devices > 1 else [{}]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=run_rank, args=(folder, cases, configs, environment)) for environment in environments]
    for rank in ranks:
        rank.start()
    running = {rank.sentinel: rank for rank in ranks}
    while running:
        for sentinel in connection.wait(list(running)):
            rank = running.pop(sentinel)
            rank.join()
            if rank.exitcode:
                for other in running.values():
                    other.kill()
    sys.exit(int(any(rank.exitcode for rank in ranks)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    main()
