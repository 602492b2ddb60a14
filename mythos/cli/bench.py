"""``mythos bench``: measurements on this machine."""

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("bench", help="measure memory", description="Measure on this machine.")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    memory = what.add_parser("memory", help="peak memory of a step against the number of passes")
    memory.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    memory.add_argument("--loops", type=int, nargs="+", default=[4, 8, 16], metavar="T", help="numbers of passes")
    memory.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    memory.add_argument("--config-dir", type=Path, help="folder to compose from instead of the packaged conf/")
    memory.set_defaults(run=run_memory)


def run_memory(arguments: argparse.Namespace) -> int:
    """Print one line for each number of passes, and the growth per pass in state tensors."""
    from mythos.config.load import load

    config = load(arguments.overrides, arguments.config_dir)

    import torch

    from mythos.bench.memory import measure, state_bytes

    points = measure(config, sorted(arguments.loops))
    state = state_bytes(config)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {' '.join(arguments.overrides)}")
    print(f"one state tensor (fp32): {state / 2**20:.1f} MiB")
    first = points[0]
    for point in points:
        line = f"T = {point.num_loops:<3} peak {point.peak_bytes / 2**20:10.1f} MiB"
        if point is not first:
            growth = (point.peak_bytes - first.peak_bytes) / (point.num_loops - first.num_loops) / state
            line += f"   {growth:6.3f} state tensors more per pass since T = {first.num_loops}"
        print(line)
    if arguments.json is not None:
        from mythos.files import write_text

        rows = [point._asdict() for point in points]
        write_text(arguments.json, json.dumps({"state_bytes": state, "points": rows}, indent=1))
    return 0
