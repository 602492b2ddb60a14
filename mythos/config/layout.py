"""Check that the parallel layout of a run fits its model, optimiser and cluster."""

from mythos.config.cluster import ClusterConfig
from mythos.config.halting import HaltingConfig, PonderHalting
from mythos.config.model import ModelConfig, MoEConfig
from mythos.config.optim import ForeignOptimConfig, MuonAdamWConfig, OptimConfig
from mythos.config.parallel import DeepSpeedParallel, ParallelConfig


def check_layout(
    parallel: ParallelConfig, cluster: ClusterConfig, model: ModelConfig, optim: OptimConfig, halting: HaltingConfig
) -> None:
    """Compare the parallel group with the groups that it depends on.

    Raises:
        ValueError: the first thing that does not fit, with what to set instead.
    """
    core = model.core_ffn
    if parallel.compile and parallel.precision == "fp32" and isinstance(core, MoEConfig) and core.dispatch == "grouped":
        raise ValueError(
            "parallel.compile is true with parallel.precision=fp32 and model.core_ffn.dispatch=grouped; torch "
            "compiles grouped products in bf16 only, so set parallel.precision=bf16 or parallel.compile=false."
        )
    if parallel.state_precision == "bf16" and parallel.precision == "fp32":
        raise ValueError(
            "parallel.state_precision is bf16 but parallel.precision is fp32; set parallel.precision=bf16, or keep the "
            "state in fp32 too."
        )
    if isinstance(parallel, DeepSpeedParallel):
        _check_zero(parallel, optim, halting)
        if parallel.ep_size > 1:
            _check_experts(parallel, cluster, model, optim)
    elif cluster.world_size > 1:
        raise ValueError(
            f"parallel.kind is single but the cluster has {cluster.num_nodes} x {cluster.num_devices} devices; set "
            "parallel=zero1 or parallel=ddp, or cluster.num_nodes=1 and cluster.num_devices=1."
        )


def _check_zero(parallel: DeepSpeedParallel, optim: OptimConfig, halting: HaltingConfig) -> None:
    stage = parallel.zero_stage
    if isinstance(optim, MuonAdamWConfig) and stage > 0:
        raise ValueError(
            f"optim.kind is muon_adamw but parallel.zero_stage is {stage}, which hands the optimiser flat pieces where "
            "Muon needs whole matrices; set optim=adamw or parallel.zero_stage=0."
        )
    if isinstance(optim, ForeignOptimConfig) and stage > 0:
        raise ValueError(
            f"optim.kind is foreign but parallel.zero_stage is {stage}, which hands the optimiser flat pieces of "
            "parameters; set optim=adamw or parallel.zero_stage=0."
        )
    if isinstance(halting, PonderHalting) and halting.train == "gate":
        raise ValueError(
            "halting.train is gate but parallel.kind is deepspeed, which has no shards for a frozen model; set "
            "parallel=single."
        )


def _check_experts(parallel: DeepSpeedParallel, cluster: ClusterConfig, model: ModelConfig, optim: OptimConfig) -> None:
    ep_size, world_size, core = parallel.ep_size, cluster.world_size, model.core_ffn
    if not isinstance(core, MoEConfig):
        raise ValueError(
            f"parallel.ep_size is {ep_size} but model.core_ffn.kind is dense, so there are no experts to shard; set "
            "parallel.ep_size=1."
        )
    if world_size % ep_size:
        raise ValueError(
            f"parallel.ep_size is {ep_size} but there are {world_size} ranks (cluster.num_nodes x "
            "cluster.num_devices); make the ranks a multiple of it."
        )
    if core.num_experts % ep_size:
        raise ValueError(
            f"parallel.ep_size is {ep_size} but model.core_ffn.num_experts is {core.num_experts}; each rank must hold "
            "as many experts as the others, so choose a divisor."
        )
    if parallel.zero_stage == 0 and optim.clip_norm is not None:
        raise ValueError(
            f"parallel.zero_stage is 0 with parallel.ep_size={ep_size} and optim.clip_norm={optim.clip_norm:g}; "
            "without ZeRO the engine clips by a norm that averages over expert ranks, so set parallel.zero_stage=1 or "
            "optim.clip_norm=null."
        )
