"""``mythos sample``: generate text with a trained model, at several loop counts or with an exit rule."""

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
    parser = subparsers.add_parser(
        "sample", help="generate text", description="Generate text with the newest checkpoint of a run."
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="use this run")
    parser.add_argument(
        "--prompt", nargs="+", default=[""], help="continue these texts (default: start a new document)"
    )
    parser.add_argument(
        "--num-loops",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="T",
        help="generate at these loop counts (default: 1 2 4 8)",
    )
    parser.add_argument("--exit-rule", metavar="RULE", help="let tokens exit the loop by this rule (docs/export.md)")
    parser.add_argument(
        "--exit-threshold", type=float, metavar="X", help="set the rule's threshold (default: that of docs/export.md)"
    )
    parser.add_argument(
        "--cache-policy", default="all", help="keep these loops in the cache: all, last, mean or mod-M (default: all)"
    )
    parser.add_argument("--num-tokens", type=int, default=100, metavar="N", help="generate N tokens (default: 100)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="X",
        help="divide logits by X; 0 takes the most probable token (default: 0.8)",
    )
    parser.add_argument(
        "--top-k", type=int, default=50, metavar="K", help="sample among the K most probable tokens (default: 50)"
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="sample among the fewest tokens whose total probability reaches P"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed the sampling (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one continuation of each prompt for each loop count."""
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
        generated = generate(
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
        for prompt, tokens, token_loops in zip(
            arguments.prompt, generated.tokens_BS.tolist(), generated.num_loops_BS.tolist(), strict=True
        ):
            print(f"{prompt}{tokenizer.decode(tokens)}\n")
            if rule is not None:
                print(_loops_of_tokens(tokenizer, tokens, token_loops), end="\n\n")
    return 0


def _loops_of_tokens(tokenizer: "Tokenizer", tokens: list[int], num_loops: list[int]) -> str:
    """List the new tokens, each with its number of loops."""
    words = (tokenizer.decode([token], skip_special_tokens=False) for token in tokens)
    each = " ".join(f"{word!r}:{count}" for word, count in zip(words, num_loops, strict=True))
    return f"loops, {sum(num_loops) / len(num_loops):.2f} on average: {each}"


def _check(arguments: argparse.Namespace) -> "ExitRule | None":
    """Check the arguments as far as possible without a checkpoint, and return the exit rule."""
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
    """Report errors with the names of the command line."""
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
