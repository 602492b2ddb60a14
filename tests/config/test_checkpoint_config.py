import pytest

from mythos.config.base import ConfigError
from mythos.config.load import load


def test_only_the_last_two_are_kept_by_default() -> None:
    settings = load([]).run.checkpoint
    assert (settings.keep_last, settings.keep_every, settings.keep_best) == (2, None, 0)
    assert (settings.asynchronous, settings.copy_to) == (True, None)


def test_a_url_is_accepted_as_an_override() -> None:
    assert load(["run.checkpoint.copy_to=s3://bucket/prefix"]).run.checkpoint.copy_to == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["every=200", "keep_every=300"], r"run.checkpoint: keep_every is 300 but every is 200; .* multiple of 200"),
        (["keep_every=0"], r"run.checkpoint.keep_every: .* 0 was given"),
        (["keep_best=-1"], r"run.checkpoint.keep_best: .* -1 was given"),
        (["keep_last=0"], r"run.checkpoint.keep_last: .* 0 was given"),
        (["copy_to=''"], r"run.checkpoint.copy_to: '' was given, .*; name a folder."),
        (["copy_to=/"], r"run.checkpoint: copy_to is '/'; give a folder or a URL"),
        (["asynchronous=3"], r"run.checkpoint.asynchronous: .* 3 was given"),
    ],
)
def test_each_mistake_gives_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load([f"run.checkpoint.{override}" for override in overrides])
