"""Calls of the scheduler's commands; a command that is missing or fails is a ConfigError of one sentence."""

import shutil
import subprocess

from mythos.config.base import ConfigError


def need(command: str, kind: str) -> None:
    """Check that a command exists on this machine.

    Raises:
        ConfigError: it does not.
    """
    if shutil.which(command) is None:
        raise ConfigError(
            f"cluster.kind is {kind} but there is no {command} on this machine; submit from a machine that has it, or "
            "print the files with --dry-run."
        )


def run(command: list[str], *, timeout_seconds: int = 60) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result, whatever its status.

    Raises:
        ConfigError: it did not end in time.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{command[0]} did not end within {timeout_seconds} seconds; check that its server runs."
        ) from None


def output(command: list[str]) -> str:
    """Run a command and return its output.

    Raises:
        ConfigError: it failed; contains the command's own message.
    """
    done = run(command)
    if done.returncode:
        message = " ".join((done.stderr or done.stdout).split())[:500]
        raise ConfigError(f"{command[0]} failed ({message or f'status {done.returncode}'}); nothing was submitted.")
    return done.stdout
