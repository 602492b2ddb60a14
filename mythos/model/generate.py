"""Text from a trained model, token by token, at a chosen depth or until a rule lets each token leave the loop."""

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
    """Passes behind each new token: those of the token before it, from which it was predicted."""


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
        num_loops: passes over the core for every token, the most of them with a rule.
        temperature: 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens; None among all.
        top_p: sample among the fewest tokens that have this probability together; None among all.
        rule: when a token leaves the loop; None never before the last pass.
        cache_policy: how passes share the past; see ``config.decoding.num_cache_slots``.
        is_real_BS: False at padding; None where there is none.
    """
    generator = torch.Generator(prompt_BS.device).manual_seed(seed)
    cache = model.new_cache(num_loops, prompt_BS.shape[1] + num_new_tokens, cache_policy)
    fresh_BS, chosen, loops = prompt_BS, [], []
    for _ in range(num_new_tokens):
        found = model.decode_until(fresh_BS, cache, rule, is_real_BS, num_logits=1)
        fresh_BS, is_real_BS = sample(found.logits_BSV[:, -1], temperature, top_k, generator, top_p), None
        chosen.append(fresh_BS)
        loops.append(found.num_loops_BS[:, -1:])
    return Generated(torch.cat(chosen, dim=1), torch.cat(loops, dim=1))


def sample(
    logits_BV: Tensor, temperature: float, top_k: int | None, generator: torch.Generator, top_p: float | None = None
) -> Tensor:
    """One token for each row, ``[B, 1]``."""
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
