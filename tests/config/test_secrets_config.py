"""No credential gets from a command line into a configuration."""

import pytest

from mythos.config.base import ConfigError
from mythos.config.load import load
from mythos.config.secrets import check_secrets

COPY_TO = "run.checkpoint.copy_to"


@pytest.mark.parametrize(
    ("path", "value", "held"),
    [
        (COPY_TO, "s3://AKIAX:hunter22@bucket/prefix", "an address with a password or token"),
        (COPY_TO, "https://only-a-token@host/prefix", "an address with a password or token"),
        (COPY_TO, "https://host/prefix?sig=hunter22", "an address that is signed"),
        (COPY_TO, "https://host/prefix?a=1&X-Amz-Signature=hunter22", "an address that is signed"),
        ("run.name", "hf_" + "hunter22" * 4, "a token"),
        ("run.name", "ghp_" + "hunter22" * 4, "a token"),
        ("data.dir", "AKIA" + "HUNTER22" * 2, "a token"),
    ],
)
def test_a_credential_is_refused_and_not_repeated(path: str, value: str, held: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["model=debug", f"{path}='{value}'"])
    assert str(caught.value).startswith(f"{path}: holds {held}, which would be written into config.json")
    assert "hunter22" not in str(caught.value).lower()


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_credential_that_a_later_override_replaces_is_refused(prefix: str) -> None:
    """Submissions and sweeps record every override."""
    with pytest.raises(ConfigError) as caught:
        load(["model=debug", f"{prefix}{COPY_TO}=https://user:hunter22@host/prefix", f"{COPY_TO}=null"])
    assert str(caught.value).startswith(f"{COPY_TO}: holds an address with a password or token, which would be")
    assert "hunter22" not in str(caught.value)


def test_a_variable_that_hydra_interpolates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef-hunter22")
    with pytest.raises(ConfigError, match=r"^run\.name: holds the value of WANDB_API_KEY, ") as caught:
        load(["model=debug", "run.name=a-${oc.env:WANDB_API_KEY}"])
    assert "hunter22" not in str(caught.value)


def test_lists_are_searched() -> None:
    with pytest.raises(ConfigError, match=r"^sources\.dir: holds an address with a password"):
        check_secrets({"sources": [{"dir": "a"}, {"dir": "s3://a:b@c"}]}, {})
    with pytest.raises(ConfigError, match=r"^words: holds a token"):
        check_secrets({"words": ["a", "hf_" + "0a" * 16]}, {})


@pytest.mark.parametrize(
    "value",
    [
        "s3://bucket/prefix",
        "sftp://me@host/prefix",
        "abfs://container@account.dfs.core.windows.net/prefix",
        "https://host:5000/a@b?version=3",
        "/data/hf_tokenized_with_many_words",
        "registry/mythos@sha256:" + "0" * 64,
    ],
)
def test_ordinary_values_are_accepted(value: str) -> None:
    check_secrets({"a": value}, {"SHORT_KEY": value[:9], "HOME": value})
