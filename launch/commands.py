"""Calling what submits: a command that is missing or fails is the user's to mend, in one sentence."""

import shutil
import subprocess

from mythos.config.base import ConfigError


def need(command: str, kind: str) -> None:
    """Raises: ConfigError: the command is not on this machine."""
    if shutil.which(command) is None:
        raise ConfigError(
            f"cluster.kind is {kind} but there is no {command} on this machine; submit from one that has it, or look "
            "at what would be submitted with --dry-run."
        )


def run(command: list[str], *, timeout_seconds: int = 60) -> subprocess.CompletedProcess[str]:
    """A command's end, whatever its status.

    Raises:
        ConfigError: it did not answer in time.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]} did not answer within {timeout_seconds} seconds; is it up?") from None


def output(command: list[str]) -> str:
    """What a command prints.

    Raises:
        ConfigError: it failed; the sentence is its own.
    """
    done = run(command)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500]
        raise ConfigError(f"{command[0]} refused ({said or f'status {done.returncode}'}); nothing was submitted.")
    return done.stdout
