"""``mythos plan``: estimate memory, traffic and speed of a run on devices that need not be installed."""

import argparse
import json
import sys

from mythos.cli.options import add_config, add_json


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "plan",
        help="estimate memory, traffic and speed on given devices",
        description="Estimate a run from its configuration and a device's data sheet. Nothing is built or measured.",
        epilog="Example: mythos plan experiment=10b-204b-tokens --device H200 --price-per-hour 3 --search",
    )
    add_config(parser)
    parser.add_argument(
        "--device",
        default="H100",
        metavar="NAME",
        help="plan for this device: H100, H200, B200, ... or its name in torch (default: H100)",
    )
    parser.add_argument(
        "--tokens", type=float, metavar="D", help="print time and cost for D tokens (default: those of the run's steps)"
    )
    parser.add_argument(
        "--price-per-hour", type=float, metavar="P", help="also print the cost, at P for an hour of one device"
    )
    parser.add_argument(
        "--efficiency", type=float, metavar="X", help="assume this share of peak FLOPs in forward and backward"
    )
    parser.add_argument("--search", action="store_true", help="list the layouts that fit, best first")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="print N layouts of --search (default: 10)")
    parser.add_argument(
        "--recipes", action="store_true", help="print one line for each recipe of conf/experiment instead"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the estimate, and advice if it does not fit; return 0 if it fits or the search found a layout that does.

    Raises:
        ConfigError: for a configuration that cannot run, or a device that is not known.
    """
    from mythos.account.peak import named_device
    from mythos.account.plan import plan
    from mythos.account.recipes import toy_settings
    from mythos.account.search import advice, search
    from mythos.cli.plan_tables import as_dict, recipes_table, report, search_table, tokens_of
    from mythos.config.load import load

    _check(arguments)
    device = named_device(arguments.device)
    if arguments.recipes:
        print(recipes_table(device))
        return 0
    config = load(arguments.overrides, arguments.config_dir)
    num_tokens = arguments.tokens or tokens_of(config)
    if sentence := toy_settings(config, is_gpu=True):
        print(f"warning: {sentence}", file=sys.stderr)
    estimate = plan(config, device, arguments.efficiency)
    needs_search = arguments.search or not estimate.fits
    found = search(config, device, arguments.efficiency) if needs_search else []
    print(report(config, estimate, num_tokens, arguments.price_per_hour))
    if not estimate.fits:
        print(f"\n{advice(config, estimate, found)}")
    if arguments.search and found:
        print(f"\n{len(found)} layouts fit\n{search_table(found[: arguments.top], num_tokens)}")
    if arguments.json is not None:
        from mythos.files import write_text

        price = arguments.price_per_hour
        content = as_dict(estimate, num_tokens, price)
        if arguments.search:
            content["layouts"] = [
                {"overrides": layout.changes(config), **as_dict(layout.plan, num_tokens, price)} for layout in found
            ]
        write_text(arguments.json, json.dumps(content, indent=1))
    return 0 if estimate.fits or (arguments.search and found) else 1


def _check(arguments: argparse.Namespace) -> None:
    from mythos.config.base import ConfigError

    for name in ("tokens", "price_per_hour", "efficiency", "top"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')}: {value:g} was given; give a positive number.")
    if arguments.efficiency is not None and arguments.efficiency > 1:
        raise ConfigError(f"--efficiency: {arguments.efficiency:g} was given; it is a share of the peak, at most 1.")
    if arguments.recipes and (arguments.overrides or arguments.config_dir is not None):
        given = arguments.overrides[0] if arguments.overrides else f"--config-dir {arguments.config_dir}"
        raise ConfigError(
            f"--recipes: {given} was given beside it, but it prints each recipe as it is; leave that out."
        )
