"""Lightning's DeepSpeed strategy with the typed configuration, on CUDA and on CPU."""

import logging
import os
from typing import Any

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.optim import Optimizer

from mythos.config.model import MoEConfig
from mythos.config.parallel import DeepSpeedParallel
from mythos.config.run import RunConfig
from mythos.parallel.compile import compile_parts
from mythos.parallel.device import choose_accelerator
from mythos.parallel.partition import partition_of
from mythos.parallel.saving import LayoutFreeCheckpoints


def engine_config(config: RunConfig) -> dict[str, Any]:
    """Return DeepSpeed's configuration; all relevant keys are set, because its defaults differ from Lightning's."""
    parallel = config.parallel
    assert isinstance(parallel, DeepSpeedParallel)
    zero: dict[str, Any] = {
        "stage": parallel.zero_stage,
        "overlap_comm": parallel.overlap_communication,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "allgather_partitions": True,
        **parallel.extra,
    }
    if parallel.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    options: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.data.micro_batch_size,
        "gradient_clipping": config.optim.clip_norm or 0.0,  # without this key DeepSpeed clips to norm 1
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
    if parallel.precision == "bf16_weights":
        options["bf16"] = {"enabled": True, "check_grad_overflow": True}
        options["data_types"] = {"grad_accum_dtype": "fp32", "keep_in_fp32_modules": ["router_bias"]}
    if parallel.ep_size > 1:
        from mythos.parallel.experts import conversion

        assert isinstance(config.model.core_ffn, MoEConfig)
        options["expert_parallel"] = conversion(config.model.core_ffn, parallel.ep_size)
    return options


class ZeroStrategy(LayoutFreeCheckpoints, DeepSpeedStrategy):
    """Shards the training state by ``parallel.zero_stage`` and experts over ``parallel.ep_size`` ranks."""

    def __init__(self, config: RunConfig) -> None:
        prepare_deepspeed(config.parallel.device)
        super().__init__(config=engine_config(config), logging_level=logging.WARNING)
        self.run_config = config

    def setup_environment(self) -> None:
        # Lightning's implementation refuses every device but CUDA.
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        # Lightning's implementation compares CUDA indices with ranks.
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Optimizer]:
        import deepspeed

        parallel, core = self.run_config.parallel, self.run_config.model.core_ffn
        assert isinstance(parallel, DeepSpeedParallel)
        assert optimizer is not None
        weights = None
        if parallel.precision == "bf16_weights":
            weights = {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}
        if parallel.ep_size > 1:
            _mark_expert_group(optimizer, parallel.ep_size)
        engine, zero, _, _ = deepspeed.initialize(
            config=self.config,
            model=model,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
            dist_init_required=False,
        )
        if parallel.ep_size > 1:
            from mythos.parallel.experts import adopt_converted_layers

            assert isinstance(core, MoEConfig)
            adopt_converted_layers(engine.module, core)
        if weights is not None:
            _set_master_weights(engine, weights)
        if parallel.compile:
            compile_parts(model.model)
        return engine, zero

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        # The engine averages gradients over ranks, but losses here are shares of a sum. Lightning has already divided
        # by the micro-batches of a step, which the engine would repeat.
        return super().backward(closure_loss * self.world_size, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def update_weights(self) -> None:
        copy_master_weights(self.optimizers[0])


def prepare_deepspeed(device: str) -> None:
    """Set options that DeepSpeed reads when it is imported.

    On a CPU it would compile a C++ extension for collectives in shared memory at the start; a process that dies during
    the compilation leaves a lock at which every later start hangs. Plain gloo needs no compiler.
    """
    if choose_accelerator(device) == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _mark_expert_group(optimizer: Optimizer, ep_size: int) -> None:
    """Set the two keys by which ZeRO finds the group of experts, to reduce it over the ranks with the same experts."""
    for group in optimizer.param_groups:
        if group["label"] == "experts":
            group |= {"name": f"ep_size_{ep_size}", "moe": True}


@torch.no_grad()
def _set_master_weights(engine: Any, weights: dict[str, Tensor]) -> None:
    """Set the fp32 slices to the exact initial weights, because the engine has rounded them to bfloat16."""
    for flat in partition_of(engine.module, engine.optimizer).flats:
        for part in flat.slices:
            value_N = weights[part.name].flatten()[part.start : part.start + part.length]
            flat.tensor[part.offset : part.offset + part.length] = value_N.to(flat.tensor.device)


def copy_master_weights(zero: Any) -> None:
    """Copy the fp32 slices to the model's weights on every rank, as the engine does after a step."""
    if hasattr(zero, "update_lp_params"):
        zero.update_lp_params()
    elif hasattr(zero, "fp32_partitioned_groups_flat"):
        zero._partition_all_parameters()
        for index in range(len(zero.fp32_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(index)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
