"""Generate tokens one by one, with a given number of loops or an exit rule."""

from typing import NamedTuple

import torch
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.model.mythos import Mythos


class Generated(NamedTuple):
    """Continuations of the prompts."""

    tokens_BS: Tensor
    """The new tokens."""
    num_loops_BS: Tensor
    """Loops behind each new token: those of the previous token, which predicts it."""


@torch.no_grad()
def generate(
    model: Mythos,
    prompt_BS: Tensor,
    num_new_tokens: int,
    num_loops: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    top_p: float | None = None,
    rule: ExitRule | None = None,
    cache_policy: str = "all",
    is_real_BS: Tensor | None = None,
) -> Generated:
    """Continue prompts.

    Args:
        prompt_BS: at least one token each; shorter ones are padded on the left.
        num_loops: loops over the core for every token; with a rule, the largest number.
        temperature: 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens; None among all.
        top_p: sample among the fewest tokens with at least this probability together; None among all.
        rule: rule by which a token exits the loop; None runs all loops.
        cache_policy: how loops share keys and values; see ``config.decoding.num_cache_slots``.
        is_real_BS: False at padding; None where there is none.
    """
    generator = torch.Generator(prompt_BS.device).manual_seed(seed)
    cache = model.new_cache(num_loops, prompt_BS.shape[1] + num_new_tokens, cache_policy)
    new_BS, chosen, loops = prompt_BS, [], []
    for _ in range(num_new_tokens):
        decoded = model.decode_until(new_BS, cache, rule, is_real_BS, num_logits=1)
        new_BS, is_real_BS = sample(decoded.logits_BSV[:, -1], temperature, top_k, generator, top_p), None
        chosen.append(new_BS)
        loops.append(decoded.num_loops_BS[:, -1:])
    return Generated(torch.cat(chosen, dim=1), torch.cat(loops, dim=1))


def sample(
    logits_BV: Tensor, temperature: float, top_k: int | None, generator: torch.Generator, top_p: float | None = None
) -> Tensor:
    """Sample one token for each row, ``[B, 1]``."""
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    if top_k is not None and top_k < logits_BV.shape[-1]:
        weakest = logits_BV.topk(top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < weakest, float("-inf"))
    prob_BV = (logits_BV / temperature).softmax(-1)
    if top_p is not None:
        ordered_BV, token_BV = prob_BV.sort(-1, descending=True)
        is_beyond_BV = ordered_BV.cumsum(-1) - ordered_BV >= top_p
        prob_BV = prob_BV.masked_fill(is_beyond_BV.gather(-1, token_BV.argsort(-1)), 0.0)
    return torch.multinomial(prob_BV, 1, generator=generator)
