"""``mythos config``: print a composed configuration, its groups, its keys with their meaning, or what was changed."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mythos.cli.options import add_config_dir

if TYPE_CHECKING:
    from mythos.config.groups import Group
    from mythos.config.keys import Key
    from mythos.config.run import RunConfig

_WIDTH: Final = 100
_HANGING: Final[dict[str, Any]] = {"subsequent_indent": 12 * " ", "break_on_hyphens": False}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "config",
        help="print the configuration that overrides compose, and what its keys mean",
        description="Print the configuration that a run with these overrides has. Nothing is started.",
        epilog="Example: mythos config experiment=quickstart depth.mean=4 --changes",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="PART | key=value",
        help="print this part only, such as depth or run.validation; override a value of the configuration",
    )
    add_config_dir(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--groups", action="store_true", help="print the groups with their options instead")
    what.add_argument("--keys", action="store_true", help="print each key with its value and its meaning instead")
    what.add_argument("--changes", action="store_true", help="print what differs from the defaults instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compose the configuration and print it as the options ask."""
    from mythos.config.base import difference, encode, flatten
    from mythos.config.groups import default_config_dir, groups_of
    from mythos.config.keys import keys_of
    from mythos.config.load import load

    overrides = [word for word in arguments.overrides if "=" in word or word.startswith("~")]
    parts = [word for word in arguments.overrides if word not in overrides]
    config_dir: Path = arguments.config_dir or default_config_dir()
    config = load(overrides, config_dir)
    _check_parts(parts, config)
    if arguments.groups:
        text = "\n".join(map(_about, groups_of(config_dir)))
    elif arguments.keys:
        text = "\n".join(line for key in keys_of(config) if _is_in(key.path, parts) for line in _lines(key))
    elif arguments.changes:
        before, after = (flatten(encode(one)) for one in (load([], config_dir), config))
        changes = difference(*({path: _text(value) for path, value in flat.items()} for flat in (before, after)))
        chosen = [change for change in changes if _is_in(change.partition(":")[0], parts)]
        text = "\n".join(chosen) or f"Nothing differs from the defaults of {config_dir / 'train.yaml'}."
    else:
        text = _yaml(_selected(encode(config), parts)).rstrip()
    try:
        print(text, flush=True)
    except BrokenPipeError:  # of head, or of a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Name the groups and their options in a parser's help."""
    from mythos.config.groups import default_config_dir, groups_of

    rows = []
    for group in groups_of(default_config_dir()):
        others = [name for name in group.options if name != group.default]
        first = [] if group.default == "null" else [group.default]
        rows.append(textwrap.fill(", ".join([*first, *others]), _WIDTH, initial_indent=f"{group.name:<12}", **_HANGING))
    title = "groups, each GROUP=OPTION, with the default first"
    more = "what a group is about: mythos config --groups; what a key means: mythos config --keys"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument_group(title, "\n".join([*rows, more]))


def _check_parts(parts: list[str], config: "RunConfig") -> None:
    """Refuse parts that the configuration does not have."""
    from mythos.config.base import ConfigError, suggestion
    from mythos.config.keys import keys_of

    paths = [key.path for key in keys_of(config)]
    known = {".".join(path.split(".")[:length]) for path in paths for length in range(1, path.count(".") + 2)}
    for part in parts:
        if part not in known:
            beside = sorted(path for path in known if path.rpartition(".")[0] == part.rpartition(".")[0])
            raise ConfigError(f"{part}: no such key; {suggestion(part, beside or sorted(known))}")


def _is_in(path: str, parts: list[str]) -> bool:
    return not parts or any(f"{path}.".startswith(f"{part}.") for part in parts)


def _selected(raw: dict[str, Any], parts: list[str], prefix: str = "") -> dict[str, Any]:
    """Return the plain data of some parts only, nested as before."""
    chosen = {}
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if _is_in(path, parts):
            chosen[key] = value
        elif isinstance(value, dict) and (below := _selected(value, parts, f"{path}.")):
            chosen[key] = below
    return chosen


def _about(group: "Group") -> str:
    options = ", ".join(f"{name} (default)" if name == group.default else name for name in group.options)
    return f"{group.name}: {group.meaning}\n{_indented(options)}"


def _lines(key: "Key") -> Iterator[str]:
    """Yield the lines about one key."""
    yield key.path if key.is_section else f"{key.path} = {_text(key.value)}"
    if key.meaning:
        yield _indented(key.meaning.replace("``", ""))
    if key.choices:
        yield _indented(f"One of {', '.join(map(_text, key.choices))}.")


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _text(value: Any) -> str:
    """Return a value as one writes it in an override."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=lambda part: {name: getattr(part, name) for name in part.__dataclass_fields__})


def _yaml(raw: dict[str, Any]) -> str:
    """Return nested data as YAML, each mapping in lines and each list in brackets."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))
    return yaml.dump(_kind_first(raw), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _kind_first(raw: Any) -> Any:
    if not isinstance(raw, dict):
        return raw
    return {key: _kind_first(raw[key]) for key in sorted(raw, key=lambda key: key != "kind")}
