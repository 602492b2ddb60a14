"""``mythos sample``: text from a trained model, at one or several depths, or as deep as each token needs."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from mythos.config.decoding import ExitRule


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("sample", help="generate text", description="Let a run's model write.")
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--prompt", nargs="+", default=[""], help="texts to continue; empty starts a new document")
    parser.add_argument(
        "--num-loops", type=int, nargs="+", default=[1, 2, 4, 8], metavar="T", help="passes over the core"
    )
    parser.add_argument("--exit-rule", metavar="RULE", help="lets a token leave the loop early; docs/export.md")
    parser.add_argument("--exit-threshold", type=float, metavar="X", help="of the rule; each has a usual one")
    parser.add_argument("--cache-policy", default="all", help="what passes remember: all, last, mean or mod-M")
    parser.add_argument("--num-tokens", type=int, default=100, help="tokens to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=50, help="sample among the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="sample among the fewest tokens of this probability together")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write one continuation of each prompt for each depth."""
    rule = _check(arguments)

    import torch

    from mythos.config.decoding import check_num_loops, check_rule_fits
    from mythos.data.tokenizer import tokenizer_of_run
    from mythos.eval.restore import restore
    from mythos.model.generate import generate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(arguments.directory, device)
    with _as_options():
        check_num_loops(max(arguments.num_loops), config.model.max_loops)
        check_rule_fits(rule, config.halting.kind)
    tokenizer, separator_id = tokenizer_of_run(config.data.directories, manifest.data_fingerprint)
    prompts = [[separator_id, *tokenizer.encode(prompt).ids] for prompt in arguments.prompt]
    longest = max(map(len, prompts))
    _check_length(longest, arguments.num_tokens, config.model.max_seq_len)
    prompt_BS = torch.tensor([[separator_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    num_padding_B = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    is_real_BS = torch.arange(longest, device=device) >= num_padding_B[:, None] if num_padding_B.any() else None
    for num_loops in arguments.num_loops:
        found = generate(
            model,
            prompt_BS,
            arguments.num_tokens,
            num_loops,
            arguments.temperature,
            arguments.top_k,
            arguments.seed,
            arguments.top_p,
            rule,
            arguments.cache_policy,
            is_real_BS,
        )
        print(f"--- T = {num_loops}")
        for prompt, tokens, passes in zip(
            arguments.prompt, found.tokens_BS.tolist(), found.num_loops_BS.tolist(), strict=True
        ):
            print(f"{prompt}{tokenizer.decode(tokens)}\n")
            if rule is not None:
                print(_depths(tokenizer, tokens, passes), end="\n\n")
    return 0


def _depths(tokenizer: "Tokenizer", tokens: list[int], passes: list[int]) -> str:
    """The new tokens, each with the passes behind it."""
    words = (tokenizer.decode([token], skip_special_tokens=False) for token in tokens)
    each = " ".join(f"{word!r}:{count}" for word, count in zip(words, passes, strict=True))
    return f"passes, {sum(passes) / len(passes):.2f} on average: {each}"


def _check(arguments: argparse.Namespace) -> "ExitRule | None":
    """Refuse what needs no checkpoint to be refused; returns the exit rule."""
    from mythos.config.base import ConfigError
    from mythos.config.decoding import exit_rule, num_cache_slots

    for name, value in (("--num-loops", min(arguments.num_loops)), ("--num-tokens", arguments.num_tokens)):
        if value < 1:
            raise ConfigError(f"{name}: {value} was given; it must be at least 1.")
    if arguments.temperature < 0 or arguments.top_k < 1:
        raise ConfigError(
            f"--temperature {arguments.temperature} and --top-k {arguments.top_k} were given; "
            "they must be at least 0 and 1."
        )
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise ConfigError(f"--top-p: {arguments.top_p} was given; it must be above 0 and at most 1.")
    with _as_options():
        num_cache_slots(arguments.cache_policy, 1)
        return exit_rule(arguments.exit_rule, arguments.exit_threshold)


@contextmanager
def _as_options() -> Iterator[None]:
    """Name what is refused as it is spelt on the command line."""
    from mythos.config.base import ConfigError

    try:
        yield
    except ValueError as error:
        name, _, sentence = str(error).partition(":")
        raise ConfigError(f"--{name.replace('_', '-')}:{sentence}") from None


def _check_length(num_prompt: int, num_new: int, limit: int) -> None:
    from mythos.config.base import ConfigError

    if num_prompt + num_new > limit:
        raise ConfigError(
            f"--prompt takes {num_prompt} tokens and --num-tokens is {num_new}, together more than the model's "
            f"{limit}; shorten one of them."
        )
