"""Commands of ``mythos`` at the end of a sweep; each is run again only if the jobs have changed since."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from mythos.files import read_regular, write_text
from mythos.report.jobs import read_jobs
from mythos.sweep.drive import print_progress
from mythos.sweep.process import arguments_of, run_command

FILE_NAME: Final = "at_end.json"
"""In the sweep's directory: ``done``, the commands that have succeeded, and ``jobs``, the job records at that time."""


def run_at_end(directory: Path, commands: tuple[str, ...]) -> bool:
    """Run the commands that have not succeeded with these jobs, until one fails; returns whether none failed."""
    jobs = read_jobs(directory)
    records = json.loads(json.dumps([dataclasses.asdict(job.record) for job in jobs]))
    done = _done(directory / FILE_NAME, records)
    runs = [str(job.directory) for job in jobs if job.state == "finished"]
    for command in commands:
        if command in done:
            continue
        if not runs and "{runs}" in command:
            print_progress(f"{command}: skipped, because no job has finished")
            return False
        print_progress(command)
        status = run_command(arguments_of(command, runs, sweep=str(directory)))
        if status != 0:
            print_progress(f"{command}: failed ({status})")
            return False
        done.append(command)
        write_text(directory / FILE_NAME, json.dumps({"jobs": records, "done": done}, indent=1))
    return True


def _done(path: Path, records: list[dict[str, Any]]) -> list[str]:
    try:
        content = json.loads(read_regular(path))
    except OSError:
        return []
    return content["done"] if content["jobs"] == records else []
