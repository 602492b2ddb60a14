"""``mythos doctor``: check this machine, and a run on it, for what would fail later."""

import argparse
import json
import time
from dataclasses import asdict

from mythos.cli.options import add_config, add_json


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine, and a run on it",
        description="Check the machine and, if there are overrides, the run that they describe with all its processes.",
        epilog="Example: mythos doctor experiment=quickstart optim=adamw parallel=zero1 cluster.num_devices=2 "
        "data.micro_batch_size=4",
    )
    add_config(parser)
    parser.add_argument("--device", metavar="NAME", help="plan memory for this GPU instead of the installed one")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per check, and return 1 if one fails.

    Raises:
        ConfigError: for a configuration that cannot run, or a device that is not known.
    """
    from mythos.account.peak import named_device
    from mythos.config.load import load
    from mythos.files import write_text
    from mythos.parallel.launcher import die_with_launcher, is_first_rank, is_launched, launch

    has_run = bool(arguments.overrides) or arguments.config_dir is not None
    config = load(arguments.overrides, arguments.config_dir) if has_run else None
    if arguments.device is not None:
        named_device(arguments.device)
    if config is not None and config.cluster.world_size > 1 and not is_launched():
        options = {"--device": arguments.device, "--json": arguments.json, "--config-dir": arguments.config_dir}
        words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return launch(config.cluster, ["doctor", *arguments.overrides, *words], time.monotonic())

    from mythos.doctor.examine import examine
    from mythos.doctor.finding import worst

    die_with_launcher()
    findings = examine(config, arguments.device)
    if not is_first_rank():
        return 0
    for finding in findings:
        print(finding)
    if arguments.json is not None:
        content = {"status": worst(findings), "findings": [asdict(finding) for finding in findings]}
        write_text(arguments.json, json.dumps(content, indent=1))
    return 1 if worst(findings) == "fails" else 0
