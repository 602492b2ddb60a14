"""``mythos plan``: estimate memory, traffic and speed of a run on devices that need not be installed."""

import argparse
import json

from mythos.cli.options import add_config, add_json


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "plan",
        help="estimate memory, traffic and speed on given devices",
        description="Estimate a run from its configuration and a device's data sheet. Nothing is built or measured.",
        epilog="Example: mythos plan model=30b optim=adamw parallel=zero1 cluster.num_nodes=16 cluster.num_devices=8 "
        "data.batch_size=1024 data.micro_batch_size=1 run.validation.num_batches=128 --search --tokens 1e12",
    )
    add_config(parser)
    parser.add_argument(
        "--device",
        default="H100",
        metavar="NAME",
        help="plan for this device: H100, H200, B200, ... or its name in torch (default: H100)",
    )
    parser.add_argument("--tokens", type=float, metavar="D", help="also print how many days D tokens take")
    parser.add_argument(
        "--efficiency", type=float, metavar="X", help="assume this share of peak FLOPs in forward and backward"
    )
    parser.add_argument("--search", action="store_true", help="list the layouts that fit, best first")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="print N layouts of --search (default: 10)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate, and advice if it does not fit; return 0 if it fits or the search found a layout that does.

    Raises:
        ConfigError: for a configuration that cannot run, or a device that is not known.
    """
    from mythos.account.peak import named_device
    from mythos.account.plan import plan
    from mythos.account.search import advice, search
    from mythos.cli.plan_tables import as_dict, report, search_table
    from mythos.config.load import load

    _check(arguments)
    config, device = load(arguments.overrides, arguments.config_dir), named_device(arguments.device)
    estimate = plan(config, device, arguments.efficiency)
    needs_search = arguments.search or not estimate.fits
    found = search(config, device, arguments.efficiency) if needs_search else []
    print(report(config, estimate, arguments.tokens))
    if not estimate.fits:
        print(f"\n{advice(config, estimate, found)}")
    if arguments.search and found:
        print(f"\n{len(found)} layouts fit\n{search_table(found[: arguments.top], arguments.tokens)}")
    if arguments.json is not None:
        from mythos.files import write_text

        content = as_dict(estimate, arguments.tokens)
        if arguments.search:
            content["layouts"] = [
                {"overrides": layout.changes(config), **as_dict(layout.plan, arguments.tokens)} for layout in found
            ]
        write_text(arguments.json, json.dumps(content, indent=1))
    return 0 if estimate.fits or (arguments.search and found) else 1


def _check(arguments: argparse.Namespace) -> None:
    from mythos.config.base import ConfigError

    for name in ("tokens", "efficiency", "top"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name}: {value:g} was given; give a positive number.")
    if arguments.efficiency is not None and arguments.efficiency > 1:
        raise ConfigError(f"--efficiency: {arguments.efficiency:g} was given; it is a share of the peak, at most 1.")
