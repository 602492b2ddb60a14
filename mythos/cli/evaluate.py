"""``mythos evaluate``: held-out loss by depth, solved problems, tasks, a study of depth, or several runs compared."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mythos.config.data import DataConfig
    from mythos.model.mythos import Mythos

_QUANTILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_STUDIES: Final = ("depth-sweep", "reasoning")
_USAGE: Final = """mythos evaluate RUN [--num-loops T ...]
       mythos evaluate RUN --tasks NAME[,NAME ...] [--data-dir DIR] [--num-loops T ...] [--exit-rule RULE] [--limit N]
       mythos evaluate RUN depth-sweep [--num-loops T ...] [--num-windows N] [--noise SIZE]
       mythos evaluate RUN reasoning [--num-loops T ...]
       mythos evaluate compare RUN RUN ..."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="held-out loss, tasks, a study of depth, or runs compared",
        description="Judge a run on its held-out data, on tasks, or against others.",
        usage=_USAGE,
    )
    parser.add_argument(
        "what", nargs="+", metavar="RUN", help="a run's directory, then nothing, depth-sweep or reasoning"
    )
    parser.add_argument(
        "--num-loops",
        type=int,
        nargs="+",
        metavar="T",
        help="loop counts (held-out loss: 1 2 4 8; tasks: the mean depth of training)",
    )
    parser.add_argument("--tasks", metavar="NAMES", help="tasks with commas between, such as piqa_local,core")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the evaluation sets")
    parser.add_argument(
        "--exit-rule", metavar="RULE", help="let each token leave by this rule, such as relative_change"
    )
    parser.add_argument("--exit-threshold", type=float, metavar="X", help="of the exit rule")
    parser.add_argument("--limit", type=int, metavar="N", help="items of each task; all")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="solved examples before each item; the task's own")
    parser.add_argument("--num-windows", type=int, default=16, metavar="N", help="windows of a depth sweep (16)")
    parser.add_argument("--noise", type=float, default=0.01, metavar="SIZE", help="disturbance in a depth sweep (0.01)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what the words ask for, print it, and keep what is worth keeping in the run's directory."""
    from mythos.cli import evaluate_studies as studies
    from mythos.config.base import ConfigError

    if arguments.num_loops is not None and min(arguments.num_loops) < 1:
        raise ConfigError(f"--num-loops: {min(arguments.num_loops)} was given; the core runs at least once.")
    match arguments.what:
        case ["compare", *directories]:
            found = studies.compare([Path(directory) for directory in directories])
        case [directory] if arguments.tasks is not None:
            found = studies.tasks(Path(directory), arguments)
        case [directory]:
            found = _held_out(Path(directory), arguments.num_loops or [1, 2, 4, 8])
        case [directory, "depth-sweep"]:
            found = studies.depth_sweep(Path(directory), arguments)
        case [directory, "reasoning"]:
            found = studies.reasoning(Path(directory), arguments)
        case [_, word, *_]:
            raise ConfigError(
                f"{word!r} was given after the run; it is one of {', '.join(_STUDIES)}, and several runs are compared "
                "by mythos evaluate compare RUN RUN."
            )
    if arguments.json is not None:
        from mythos.files import write_text

        write_text(arguments.json, json.dumps(found, indent=1))
    return 0


def _held_out(run_directory: Path, depths: list[int]) -> dict[str, Any]:
    """The newest checkpoint on the validation split of every data set that it was trained on."""
    import torch

    from mythos.data.manifest import read_manifest
    from mythos.eval.restore import check_data, restore
    from mythos.eval.scoring import check_loops

    check_loops(max(depths))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(run_directory, device)
    check_data(config, manifest)
    print(f"{run_directory} at step {manifest.step}")
    found = {}
    for directory in map(Path, config.data.directories):
        described = read_manifest(directory).splits["validation"]
        judge = _text if described.examples_file is None else solved
        found[str(directory)] = judge(directory, model, config.data, depths)
    return found


def _text(directory: Path, model: "Mythos", data: "DataConfig", depths: list[int]) -> dict[str, Any]:
    """Bits per byte by depth, beside what compressors need for the same text."""
    from mythos.data.loader import batches
    from mythos.data.tokenizer import text_of
    from mythos.eval.perplexity import compressed_bits_per_byte, held_out_loss

    text = text_of(directory, "validation")
    stream = batches(directory, "validation", data.seq_len, data.micro_batch_size, data.mask_documents)
    result = held_out_loss(model, stream, tuple(depths))
    print(f"{directory}: {len(text):,} bytes of held-out text")
    compressors = compressed_bits_per_byte(text)
    for name, bits in compressors.items():
        print(f"  {name:<10}{bits:7.3f} bits per byte")
    nats, bits_per_byte = result.nats_per_token(), result.bits_per_byte(len(text))
    for depth, bits in bits_per_byte.items():
        print(f"  {f'T = {depth}':<10}{bits:7.3f} bits per byte   {nats[depth]:.4f} nats per token")
    return {"bits_per_byte": bits_per_byte, "nats_per_token": nats, "compressors": compressors}


def solved(directory: Path, model: "Mythos", data: "DataConfig", depths: list[int]) -> dict[str, Any]:
    """Accuracy by difficulty and depth, and by quantile of the exit distribution where there is one."""
    from mythos.eval.reasoning import exit_point, study

    result = study(model, directory, data, max(depths))
    table = {depth: result.accuracy(depth) for depth in sorted(set(depths))}
    print(f"{directory}: share of {len(result.difficulty_E):,} problems solved, by difficulty")
    print("  " + "".join(f"{name!s:>8}" for name in ("T", *table[min(table)])))
    for depth, accuracy in table.items():
        print(f"  {depth:>8}" + "".join(f"{share:>8.3f}" for share in accuracy.values()))
    found: dict[str, Any] = {"accuracy": table}
    if result.exit_prob_TE is not None:
        points = [exit_point(result, quantile) for quantile in _QUANTILES]
        print("  leaving at a quantile of the exit distribution: mean passes, share solved, rank correlation")
        for point in points:
            numbers = f"{point.mean_loops:8.2f}{point.accuracy:8.3f}{point.rank_correlation:8.3f}"
            print(f"  {point.quantile:8.2f}{numbers}")
        found["exits"] = [point._asdict() for point in points]
    return found
