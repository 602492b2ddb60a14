"""Weights of the loss terms; a term of weight zero is not computed into the loss."""

from mythos.config.base import NonNegative, config


@config
class ObjectiveConfig:
    """loss = nll + weighted penalties; the penalties never touch the evaluation."""

    z_loss: NonNegative = 0.0
    """On the squared log-partition of the output logits (PaLM, arXiv 2204.02311)."""
    router_z_loss: NonNegative = 0.0
    """On the squared log-partition of the router logits (ST-MoE, arXiv 2202.08906)."""
    balance_loss: NonNegative = 0.0
    """Sequence-wise balance of expert load (DeepSeek-V3, arXiv 2412.19437)."""
