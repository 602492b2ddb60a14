"""Injects a fault into a rank of a run that another process starts, with this folder on its PYTHONPATH.

``FAULT`` specifies it: ``{"rank": 1, "step": 5, "what": "hang"}``. With ``once``, the name of a file, the fault happens
only if that file exists, and deletes it.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any


class InjectedError(RuntimeError):
    """A bug in a step."""


def act(fault: dict[str, Any]) -> None:
    match fault["what"]:
        case "hang":
            time.sleep(3600)  # the line that hangs
        case "slow":
            time.sleep(0.5)
        case "raise":
            raise InjectedError
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def inject(fault: dict[str, Any]) -> None:
    from mythos.train import module

    objective = module.objective

    def faulty(config: Any, output: Any, batch: Any, plan: Any, terms: Any) -> Any:
        sample = int(batch.sample_ids_B[0])
        is_there = sample // config.data.batch_size + 1 == fault["step"] or fault["step"] == "every"
        if is_there and ("once" not in fault or Path(fault["once"]).exists()):
            if "once" in fault:
                Path(fault["once"]).unlink()
            act(fault)
        return objective(config, output, batch, plan, terms)

    module.objective = faulty


if "FAULT" in os.environ and json.loads(os.environ["FAULT"])["rank"] == int(os.environ.get("RANK", "-1")):
    inject(json.loads(os.environ["FAULT"]))
