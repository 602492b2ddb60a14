"""``mythos sample``: text from a trained model, at one or several depths."""

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("sample", help="generate text", description="Let a run's model write.")
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--prompt", default="", help="text to continue; empty starts a new document")
    parser.add_argument("--loops", type=int, nargs="+", default=[1, 2, 4, 8], metavar="T", help="loop counts")
    parser.add_argument("--num-tokens", type=int, default=100, help="tokens to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=50, help="sample among the k likeliest tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write one continuation for each depth."""
    _check(arguments)

    import torch

    from mythos.data.manifest import read_manifest
    from mythos.data.tokenizer import load_tokenizer
    from mythos.eval.restore import restore
    from mythos.model.generate import generate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, _ = restore(arguments.directory, device)
    directory = Path(config.data.directories[0])
    tokenizer = load_tokenizer(directory)
    prompt = [read_manifest(directory).separator_id, *tokenizer.encode(arguments.prompt).ids]
    _check_length(len(prompt), arguments.num_tokens, config.model.max_seq_len)
    for num_loops in arguments.loops:
        new_BS = generate(
            model,
            torch.tensor([prompt], device=device),
            arguments.num_tokens,
            num_loops,
            arguments.temperature,
            arguments.top_k,
            arguments.seed,
        )
        print(f"--- T = {num_loops}\n{arguments.prompt}{tokenizer.decode(new_BS[0].tolist())}\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from mythos.config.base import ConfigError

    for name, value in (("--loops", min(arguments.loops)), ("--num-tokens", arguments.num_tokens)):
        if value < 1:
            raise ConfigError(f"{name}: {value} was given; it must be at least 1.")
    if arguments.temperature < 0 or arguments.top_k < 1:
        raise ConfigError(
            f"--temperature {arguments.temperature} and --top-k {arguments.top_k} were given; "
            "they must be at least 0 and 1."
        )


def _check_length(num_prompt: int, num_new: int, limit: int) -> None:
    from mythos.config.base import ConfigError

    if num_prompt + num_new > limit:
        raise ConfigError(
            f"--prompt takes {num_prompt} tokens and --num-tokens is {num_new}, together more than the model's "
            f"{limit}; shorten one of them."
        )
