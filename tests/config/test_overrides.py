"""Texts of a command line that Hydra or a file system does not take: one sentence each, with what to write instead."""

import shlex
from pathlib import Path

import pytest

from mythos.cli.main import main
from mythos.config.base import ConfigError
from mythos.config.load import load

HOME = Path.home()


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(list(overrides))
    return str(caught.value)


TEXTS = "größe a=b exp#1 it's a;b a)b (a) a]b a&b a!b a,b [a {a 'a 💥 C:\\x# ^x <x> `x` ${ foo(1) glob(*)".split()


@pytest.mark.parametrize("text", [*TEXTS, 'say "a"'])
def test_a_text_that_hydra_does_not_read_is_given_back_quoted(text: str) -> None:
    """The advice is a word of the shell, which sets exactly this text."""
    sentence = message(f"tracking.project={text}", "tracking=wandb")
    assert sentence.startswith(f"tracking.project={text}: ")
    assert sentence.count("\n") == 0
    assert not any(word in sentence for word in ("++", "Lexer", "hydra.cc", "EOF", "viable"))
    start = sentence.index("'tracking.project=")
    (override,) = shlex.split(sentence[start:].removesuffix(".").removesuffix(" for a text"))
    assert load([override, "tracking=wandb"]).tracking.project == text


@pytest.mark.parametrize("key", ["run.dir", "data.dir", "run.init_from", "resume", "run.checkpoint.copy_to"])
def test_a_tilde_is_not_expanded(key: str) -> None:
    assert (
        message(f"{key}=~/runs") == f"{key}=~/runs: not understood; ~ is not expanded here, so write {key}={HOME}/runs."
    )
    assert message(f"{key}='~/runs'") == f"{key}: '~/runs' was given, but ~ is not expanded here; write {HOME}/runs."


@pytest.mark.parametrize("key", ["run.name", "run.dir", "data.dir", "resume", "model", "experiment", "run.seed"])
def test_an_empty_variable_of_the_shell_is_named(key: str) -> None:
    empty = "the value is empty, perhaps a variable of the shell; give one, or null for none."
    assert message(f"{key}=") == f"{key}=: {empty}"
    assert message(f"{key}= ") == f"{key}= : {empty}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.name=1e3", """run.name: a text is needed, but 1000.0 was given; quote .*, 'run.name="TEXT"'"""),
        ("run.name=true", "run.name: a text is needed, but True was given"),
        ("run.name=''", "run.name: '' was given, perhaps from an empty variable of the shell; name a folder."),
        ("run.name=..", "run.name: '..' was given; give the name of a folder below run.dir"),
        ("run.name=/a", "run.name: '/a' was given; give the name of a folder below run.dir"),
        ("run.name=a/../b", "run.name: 'a/../b' was given; give the name of a folder below run.dir"),
        ("run.name=a/", "run.name: 'a/' was given; give the name of a folder below run.dir"),
        ("run.name='a\nb'", r"run.name: 'a\\nb' was given; leave out '\\n', which is no character of a text"),
        ("run.name='\udc80'", "run.name: .* was given; leave out .*, which is no character of a text"),
        (f"run.name={'x' * 256}", "run.name: a name of 256 bytes was given .* at most 255; shorten it."),
        (f"run.name='{'ö' * 128}'", "run.name: a name of 256 bytes was given"),
        (f"run.dir=a/{'x' * 256}/b", "run.dir: a name of 256 bytes was given"),
        (f"data.dir={'x/' * 1600}", "data.dir: a path of 3200 bytes was given; it has at most 3072"),
        ("run.name=${oc.env:NO_SUCH_VARIABLE}", "run.name: the environment variable NO_SUCH_VARIABLE is not set"),
        ("run.name=${nothing}", "run.name: interpolation key 'nothing' not found; give the value itself."),
        ("run.name=${run.name}", "run.name: recursive interpolation detected"),
        ("run.name=???", "run.name: a value is needed and none was given."),
        ("hydra.verbose=true", "hydra.verbose=true: Hydra only composes the configuration here"),
        ("+model=debug", r"\+model: the group has an option already; write model=NAME, without the plus."),
        ("~nothing", "~nothing: there is no such key to remove; leave it out."),
        ("größe=1", "größe=1: not understood; an override is written key=value."),
        ("run..name=1", "run..name=1: not understood; an override is written key=value."),
        ("run.seed=9223372036854775808", "run.seed: input should be less than or equal to 9223372036854775807"),
        ("run.num_steps=99999999999999999999", "run.num_steps: input should be less than or equal to"),
        ("run.stall_seconds=1e300", "run.stall_seconds: input should be less than or equal to 1000000000"),
        ("cluster.timeout_seconds=99999999999", "cluster.timeout_seconds: input should be less than or equal to"),
        ("cluster.num_threads=9999999999", "cluster.num_threads: input should be less than or equal to 4096"),
    ],
)
def test_what_the_system_does_not_take_gets_one_sentence(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{expected}") as caught:
        load([override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 255, "ö" * 127, "a/b", "007", "a b", "-x", ".x", "größe"])
def test_names_that_file_systems_take_are_accepted(name: str) -> None:
    assert load([f"run.name='{name}'"]).run.name == name


@pytest.mark.parametrize("command", ["train", "costs", "plan", "doctor", "sweep"])
def test_every_command_refuses_with_status_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "run.dir=~/runs"]) == 2
    error = capsys.readouterr().err
    assert error == f"mythos: run.dir=~/runs: not understood; ~ is not expanded here, so write run.dir={HOME}/runs.\n"
