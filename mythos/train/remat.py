"""``parallel.remat=auto``: resolved once at the start, so that all ranks and the recorded configuration agree."""

from mythos.account.estimate import POLICIES, choose_remat, with_policy
from mythos.config.run import RunConfig


def resolve_remat(config: RunConfig) -> RunConfig:
    """Replace ``remat=auto`` by a policy for this device, and print it; another configuration is returned unchanged.

    Only the device's properties are read. Host memory is not estimated: without ``parallel.memory_gb`` a run on a CPU
    recomputes nothing.

    Raises:
        ConfigError: no policy fits the device.
    """
    if config.parallel.remat != "auto":
        return config

    import torch

    from mythos.parallel.device import choose_accelerator

    is_cuda, memory_gb = choose_accelerator(config.parallel.device) == "gpu", config.parallel.memory_gb
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
    resolved, sentence = choose_remat(config, name, memory_bytes, has_fused_experts)
    print(sentence, flush=True)
    return resolved
