"""``mythos trace``: write what a trained model computes for one text, token by token and loop by loop."""

import argparse
from pathlib import Path

from mythos.cli.options import as_options


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

    if arguments.num_loops is not None and arguments.num_loops < 1:
        raise ConfigError(f"--num-loops: {arguments.num_loops} was given; the core runs at least once.")
    if not arguments.prompt:
        raise ConfigError("--prompt: 0 characters were given; give at least 1.")

    from mythos.data.tokenizer import open_documents, tokenizer_of_run
    from mythos.eval.restore import choose_device, restore
    from mythos.eval.trace import trace_text
    from mythos.parallel.threads import take_threads
    from mythos.report.trace_arrays import write_arrays
    from mythos.report.trace_page import Origin, write_trace_page

    take_threads()
    config, model, manifest = restore(arguments.directory, choose_device())
    tokenizer = open_documents(
        *tokenizer_of_run(arguments.directory, config.data.directories, manifest.data_fingerprint)
    )
    num_loops = config.mean_loops if arguments.num_loops is None else arguments.num_loops
    with as_options():
        result = trace_text(model, tokenizer, arguments.prompt, num_loops, arguments.layers, arguments.heads)
    folder = arguments.to or arguments.directory / "trace"
    try:
        write_arrays(folder / "trace.npz", result)
        write_trace_page(folder / "index.html", result, Origin(config, manifest.step))
    except OSError as error:
        raise ConfigError(
            f"--to {folder}: the trace cannot be written ({error.strerror}); name a folder that can be written."
        ) from None
    print(folder / "index.html")
    print(folder / "trace.npz")
    return 0
