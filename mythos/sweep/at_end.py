"""Commands of ``mythos`` once all jobs of a sweep have ended, each run again only where the jobs have changed since."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from mythos.files import write_text
from mythos.report.jobs import read_jobs
from mythos.sweep.drive import say
from mythos.sweep.process import run_command, words_of

FILE_NAME: Final = "at_end.json"
"""In the sweep's directory: ``done``, the commands that have ended well, and ``jobs``, the records they found."""


def run_at_end(directory: Path, commands: tuple[str, ...]) -> bool:
    """Run what has not ended well with these jobs, until one fails; returns whether none did."""
    jobs = read_jobs(directory)
    records = json.loads(json.dumps([dataclasses.asdict(job.record) for job in jobs]))
    done = _done(directory / FILE_NAME, records)
    runs = [str(job.directory) for job in jobs if job.state == "finished"]
    for command in commands:
        if command in done:
            continue
        if not runs and "{runs}" in command:
            say(f"{command}: left out, for no job has finished")
            return False
        say(command)
        status = run_command(words_of(command, runs, sweep=str(directory)))
        if status != 0:
            say(f"{command}: failed ({status})")
            return False
        done.append(command)
        write_text(directory / FILE_NAME, json.dumps({"jobs": records, "done": done}, indent=1))
    return True


def _done(path: Path, records: list[dict[str, Any]]) -> list[str]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return []
    return said["done"] if said["jobs"] == records else []
