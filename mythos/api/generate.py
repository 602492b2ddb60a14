"""Generate text, at a fixed number of loops or with an exit rule."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer

from mythos.api.model import LanguageModel
from mythos.config.decoding import TextOptions, check_rule_fits
from mythos.config.decoding import exit_rule as rule_of
from mythos.data.tokenizer import token_ids
from mythos.model.generate import generate as generate_tokens


class Generation(NamedTuple):
    """A continuation of a prompt."""

    text: str
    """The new text, without the prompt."""
    tokens: list[int]
    """The new tokens."""
    num_loops: list[int]
    """Loops from which each new token was predicted."""


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    num_tokens: int = 100,
    num_loops: int | None = None,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    exit_rule: str | None = None,
    exit_threshold: float | None = None,
    cache_policy: str = "all",
    seed: int = 0,
) -> Generation:
    """Continue a prompt; the empty one starts a new document.

    Args:
        model: a model as ``load`` or ``build_model`` returns it.
        tokenizer: the model's tokenizer, as ``load`` returns it.
        num_tokens: number of new tokens; with those of the prompt at most the model's ``max_seq_len``.
        num_loops: number of loops of every token, or their maximum with an exit rule; None for the mean depth of
            training.
        temperature: divides the logits before sampling; 0 takes the most probable token.
        top_k: sample among the k most probable tokens; None among all.
        top_p: sample among the fewest tokens that have this probability together; None among all.
        exit_rule: rule by which a token exits the loop, one of quantile, output_divergence, relative_change,
            relative_acceleration and stable_argmax; None runs all loops.
        exit_threshold: threshold of the rule; None for its default.
        cache_policy: which keys and values of earlier tokens the loops keep: all, last, mean or mod-M.
        seed: seed of the sampling.

    Raises:
        ValueError: an argument is out of range, or the tokens do not fit into the model.
    """
    options = TextOptions(
        num_tokens=num_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rule=rule_of(exit_rule, exit_threshold),
        cache_policy=cache_policy,
        seed=seed,
    )
    return continue_prompts(model, tokenizer, [prompt], num_loops, options)[0]


def continue_prompts(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], num_loops: int | None, options: TextOptions
) -> list[Generation]:
    """Continue several prompts in one batch; see ``generate``.

    Raises:
        ValueError: the number of loops, the rule or the number of tokens does not fit the model.
    """
    num_loops = model.loops(num_loops)
    check_rule_fits(options.rule, model.model.halting.config.kind)
    encoded = [token_ids(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, encoded))
    if longest + options.num_tokens > model.config.max_seq_len:
        raise ValueError(
            f"prompt: it takes {longest} tokens and num_tokens is {options.num_tokens}, together more than the model's "
            f"{model.config.max_seq_len}; shorten one of them."
        )
    prompt_BS = torch.tensor([[ids[0]] * (longest - len(ids)) + ids for ids in encoded], device=model.device)
    num_padding_B = torch.tensor([longest - len(ids) for ids in encoded], device=model.device)
    is_real_BS = torch.arange(longest, device=model.device) >= num_padding_B[:, None] if num_padding_B.any() else None
    generated = generate_tokens(
        model.model,
        prompt_BS,
        options.num_tokens,
        num_loops,
        options.temperature,
        options.top_k,
        options.seed,
        options.top_p,
        options.rule,
        options.cache_policy,
        is_real_BS,
    )
    rows = zip(generated.tokens_BS.tolist(), generated.num_loops_BS.tolist(), strict=True)
    return [Generation(tokenizer.decode(tokens), tokens, loops) for tokens, loops in rows]
