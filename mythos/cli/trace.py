"""``mythos trace``: what a trained model does with one text, token by token and pass by pass."""

import argparse
from pathlib import Path
from typing import Final

MAX_WEIGHTS: Final = 2**25
"""Attention weights of one trace: 134 MB of arrays, and a page that a browser still opens."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "trace",
        help="look into a text, token by token and pass by pass",
        description="Write what a run's model makes of one text after each pass: an HTML page and arrays.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--prompt", required=True, help="the text")
    parser.add_argument("--num-loops", type=int, metavar="T", help="passes; the mean depth of training when left out")
    parser.add_argument("--layers", type=int, nargs="+", metavar="L", help="core layers whose attention is kept; all")
    parser.add_argument("--heads", type=int, nargs="+", metavar="H", help="heads whose attention is kept; all")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to write to; RUN/trace")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trace the text through the newest checkpoint and print the paths of page and arrays."""
    from mythos.config.base import ConfigError

    if not arguments.prompt:
        raise ConfigError("--prompt: 0 characters were given; give at least 1, for there is nothing to trace.")
    if arguments.num_loops is not None and arguments.num_loops < 1:
        raise ConfigError(f"--num-loops: {arguments.num_loops} was given; the core runs at least 1 pass.")

    import torch

    from mythos.data.manifest import read_manifest
    from mythos.data.tokenizer import load_tokenizer
    from mythos.eval.restore import restore
    from mythos.eval.trace import trace
    from mythos.report.trace_arrays import write_arrays
    from mythos.report.trace_page import Origin, write_trace_page

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(arguments.directory, device)
    directory = Path(config.data.directories[0])
    tokenizer = load_tokenizer(directory)
    tokens = [read_manifest(directory).separator_id, *tokenizer.encode(arguments.prompt).ids]
    num_loops = arguments.num_loops or max(1, round(config.depth.mean))
    layers = _chosen("--layers", arguments.layers, config.model.num_core_layers, "core layers")
    heads = _chosen("--heads", arguments.heads, config.model.attention.num_heads, "heads")
    _check_size(len(tokens), config.model.max_seq_len, num_loops * len(layers) * len(heads))

    def text_of(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False)

    found = trace(model, tokens, num_loops, layers, heads, text_of)
    folder = arguments.to or arguments.directory / "trace"
    try:
        write_arrays(folder / "trace.npz", found)
        write_trace_page(folder / "index.html", found, Origin(config, manifest.step))
    except OSError as error:
        raise ConfigError(
            f"--to {folder}: the trace cannot be written ({error.strerror}); name a folder that can take it."
        ) from None
    print(folder / "index.html")
    print(folder / "trace.npz")
    return 0


def _chosen(option: str, given: list[int] | None, count: int, what: str) -> list[int]:
    """The indices asked for, ascending and once each, or all of them."""
    from mythos.config.base import ConfigError

    if given is None:
        return list(range(count))
    for index in given:
        if not 0 <= index < count:
            raise ConfigError(
                f"{option}: {index} was given, but the model has {count} {what}; give numbers from 0 to {count - 1}."
            )
    return sorted(set(given))


def _check_size(num_tokens: int, limit: int, num_maps: int) -> None:
    from mythos.config.base import ConfigError

    if num_tokens > limit:
        raise ConfigError(
            f"--prompt takes {num_tokens} tokens, the one that opens it included, more than the model's {limit}; "
            "shorten it."
        )
    if (num_weights := num_maps * num_tokens**2) > MAX_WEIGHTS:
        raise ConfigError(
            f"--prompt of {num_tokens} tokens makes {num_maps} attention maps of {num_weights:,} weights together, "
            f"more than {MAX_WEIGHTS:,}; shorten it, or choose fewer with --num-loops, --layers or --heads."
        )
