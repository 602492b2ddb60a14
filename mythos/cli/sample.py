"""``mythos sample``: generate text with a trained model, at several loop counts or with an exit rule."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mythos.cli.options import as_options

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from mythos.api.generate import Generation
    from mythos.config.decoding import TextOptions


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sample",
        help="generate text",
        description="Generate text with the newest checkpoint of a run, or with an exported model.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="use this run, or this folder of mythos export")
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
    """Write one continuation of each prompt for each number of loops."""
    options = _options(arguments)

    from mythos.api.generate import continue_prompts
    from mythos.api.load import load
    from mythos.data.text import encodable
    from mythos.parallel.threads import take_threads

    take_threads()
    model, tokenizer, _ = load(arguments.directory)
    with as_options():
        model.loops(max(arguments.num_loops))
    for num_loops in arguments.num_loops:
        with as_options():
            generated = continue_prompts(model, tokenizer, arguments.prompt, num_loops, options)
        print(f"--- T = {num_loops}")
        for prompt, one in zip(arguments.prompt, generated, strict=True):
            print(f"{encodable(prompt)}{one.text}\n")
            if options.rule is not None:
                print(_loops_of(tokenizer, one), end="\n\n")
    return 0


def _loops_of(tokenizer: "Tokenizer", generated: "Generation") -> str:
    """The new tokens, each with the number of loops that predicted it."""
    words = (tokenizer.decode([token], skip_special_tokens=False) for token in generated.tokens)
    each = " ".join(f"{word!r}:{count}" for word, count in zip(words, generated.num_loops, strict=True))
    return f"loops, {sum(generated.num_loops) / len(generated.num_loops):.2f} on average: {each}"


def _options(arguments: argparse.Namespace) -> "TextOptions":
    """Check what needs no model to be checked."""
    from mythos.config.base import ConfigError
    from mythos.config.decoding import TextOptions, exit_rule

    if min(arguments.num_loops) < 1:
        raise ConfigError(f"--num-loops: {min(arguments.num_loops)} was given; it must be at least 1.")
    with as_options():
        return TextOptions(
            num_tokens=arguments.num_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            rule=exit_rule(arguments.exit_rule, arguments.exit_threshold),
            cache_policy=arguments.cache_policy,
            seed=arguments.seed,
        )
