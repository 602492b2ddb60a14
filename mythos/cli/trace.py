"""``mythos trace``: write what a trained model computes for one text, token by token and loop by loop."""

import argparse
from pathlib import Path
from typing import Final

MAX_WEIGHTS: Final = 2**25
"""Most attention weights of one trace: 134 MB of arrays, and a page that a browser can open."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "trace",
        help="trace a text, token by token and loop by loop",
        description="Write what a run's model computes for one text after each loop, as an HTML page and arrays.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="use this run")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="trace this text")
    parser.add_argument("--num-loops", type=int, metavar="T", help="run T loops (default: the mean depth of training)")
    parser.add_argument(
        "--layers", type=int, nargs="+", metavar="L", help="write the attention of these core layers (default: all)"
    )
    parser.add_argument(
        "--heads", type=int, nargs="+", metavar="H", help="write the attention of these heads (default: all)"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="write to this folder (default: RUN/trace)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trace the text with the newest checkpoint and print the paths of page and arrays."""
    from mythos.config.base import ConfigError

    if not arguments.prompt:
        raise ConfigError("--prompt: 0 characters were given; give at least 1.")
    if arguments.num_loops is not None and arguments.num_loops < 1:
        raise ConfigError(f"--num-loops: {arguments.num_loops} was given; the core runs at least once.")

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
    layers = _selected("--layers", arguments.layers, config.model.num_core_layers, "core layers")
    heads = _selected("--heads", arguments.heads, config.model.attention.num_heads, "heads")
    _check_size(len(tokens), config.model.max_seq_len, num_loops * len(layers) * len(heads))

    def text_of(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False)

    traced = trace(model, tokens, num_loops, layers, heads, text_of)
    folder = arguments.to or arguments.directory / "trace"
    try:
        write_arrays(folder / "trace.npz", traced)
        write_trace_page(folder / "index.html", traced, Origin(config, manifest.step))
    except OSError as error:
        raise ConfigError(
            f"--to {folder}: the trace cannot be written ({error.strerror}); name a folder that can be written."
        ) from None
    print(folder / "index.html")
    print(folder / "trace.npz")
    return 0


def _selected(option: str, given: list[int] | None, count: int, what: str) -> list[int]:
    """Return the given indices, ascending and unique, or all of them."""
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
            f"--prompt takes {num_tokens} tokens, including the one that opens the document, more than the model's "
            f"{limit}; shorten it."
        )
    if (num_weights := num_maps * num_tokens**2) > MAX_WEIGHTS:
        raise ConfigError(
            f"--prompt of {num_tokens} tokens makes {num_maps} attention maps of {num_weights:,} weights in total, "
            f"more than {MAX_WEIGHTS:,}; shorten it, or choose fewer with --num-loops, --layers or --heads."
        )
