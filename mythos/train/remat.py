"""The run on this device: ``parallel.remat=auto`` resolved once, an explicit policy compared with the memory."""

from mythos.account.estimate import POLICIES, with_policy
from mythos.account.fit import check_policy, choose_remat
from mythos.config.run import RunConfig


def resolve_remat(config: RunConfig) -> RunConfig:
    """Replace ``remat=auto`` by a policy for this device, and print it; another configuration is returned unchanged.

    Only the device's properties are read. Host memory is not estimated: without ``parallel.memory_gb`` a run on a CPU
    recomputes nothing, and an explicit policy is not checked there.

    Raises:
        ConfigError: no policy fits the device, or the explicit one cannot.
    """
    import torch

    from mythos.parallel.device import choose_accelerator

    is_auto, memory_gb = config.parallel.remat == "auto", config.parallel.memory_gb
    is_cuda = choose_accelerator(config.parallel.device) == "gpu"
    if not is_cuda and not is_auto:
        return config
    if memory_gb is None and not is_cuda:
        print("parallel.remat=auto: none, since the memory of a CPU is not estimated", flush=True)
        return with_policy(config, POLICIES[0])
    name, memory_bytes, has_fused_experts = "parallel.memory_gb", 0, False
    if is_cuda:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        name, memory_bytes = properties.name, properties.total_memory
        has_fused_experts = (properties.major, properties.minor) >= (9, 0)
    if memory_gb is not None:
        memory_bytes = int(memory_gb * 1e9)
    if not is_auto:
        check_policy(config, name, memory_bytes, has_fused_experts)
        return config
    resolved, sentence = choose_remat(config, name, memory_bytes, has_fused_experts)
    print(sentence, flush=True)
    return resolved
