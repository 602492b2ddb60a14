"""Text from a trained model, token by token, at a chosen depth."""

import torch
from torch import Tensor

from mythos.model.mythos import Mythos


@torch.no_grad()
def generate(
    model: Mythos,
    prompt_BS: Tensor,
    num_new_tokens: int,
    num_loops: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> Tensor:
    """Continue prompts of equal length.

    Args:
        prompt_BS: at least one token each.
        num_loops: passes over the core for every token.
        temperature: 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens; None among all.

    Returns:
        The new tokens, ``[B, num_new_tokens]``.
    """
    generator = torch.Generator(prompt_BS.device).manual_seed(seed)
    cache = model.new_cache(num_loops, prompt_BS.shape[1] + num_new_tokens)
    fresh_BS, chosen = prompt_BS, []
    for _ in range(num_new_tokens):
        logits_BV = model.decode(fresh_BS, cache)[:, -1]
        fresh_BS = sample(logits_BV, temperature, top_k, generator)
        chosen.append(fresh_BS)
    return torch.cat(chosen, dim=1)


def sample(logits_BV: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """One token for each row, ``[B, 1]``."""
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    if top_k is not None and top_k < logits_BV.shape[-1]:
        weakest = logits_BV.topk(top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < weakest, float("-inf"))
    return torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)
