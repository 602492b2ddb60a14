"""Makes the losses of several runs comparable: runs with different tokenizers are compared in bits per byte."""

import math
from typing import Any, NamedTuple

from mythos.config import records
from mythos.report.compare import Runs
from mythos.report.evaluations import DEPTH_SWEEP
from mythos.report.read import Run, Series
from mythos.report.units import BITS

_LOSSES = (records.TRAIN_LOSS, "val/loss/", "loop/loss/")
_SWEPT = ("loss", "frozen_loss")


class Comparable(NamedTuple):
    """Runs with losses of one unit."""

    runs: Runs
    note: str | None
    """Which unit the losses have and why, as text; None if all runs have the same tokenizer."""


def comparable(runs: Runs) -> Comparable:
    """The runs as they are if they share a tokenizer; otherwise with losses in bits per byte, NaN if not known.

    Runs share a tokenizer if they recorded the same one; where one did not record any, vocabulary sizes are compared.
    """
    recorded = [run.text.tokenizer_sha256 for run in runs.values() if run.text is not None]
    sizes = {run.config.model.vocab_size for run in runs.values()}
    num_tokenizers = len(set(recorded)) if len(recorded) == len(runs) else max(len(set(recorded)), len(sizes))
    if num_tokenizers <= 1:
        return Comparable(runs, None)
    unknown = [name for name, run in runs.items() if run.text is None or run.text.bytes_per_token is None]
    note = (
        f"The runs have {num_tokenizers} different tokenizers, and nats per token of different tokens are not "
        "comparable: all losses are in bits per byte."
    )
    if unknown:
        note += (
            f" The losses of {', '.join(unknown)} are left out, because the bytes per token of their data are not "
            "known; run this command where their data.dir can be read, or resume them, which records it."
        )
    return Comparable({name: in_bits_per_byte(run) for name, run in runs.items()}, note)


def in_bits_per_byte(run: Run) -> Run:
    """The run with all losses in bits per byte; NaN if its bytes per token are not known."""
    factor = math.nan if run.text is None else run.text.bits_per_nat
    series = {
        name: Series(each.steps, each.values * factor) if name.startswith(_LOSSES) else each
        for name, each in run.series.items()
    }
    studies = dict(run.evaluations)
    if DEPTH_SWEEP in studies:
        studies[DEPTH_SWEEP] = _scaled(studies[DEPTH_SWEEP], factor)
    return run._replace(series=series, evaluations=studies, loss_unit=BITS, in_nats=run)


def _scaled(sweep: dict[str, Any], factor: float) -> dict[str, Any]:
    """A depth sweep with all of its losses multiplied."""
    losses = {key: [factor * loss for loss in sweep[key]] for key in _SWEPT if sweep.get(key) is not None}
    return sweep | losses | {"rules": [point | {"loss": factor * point["loss"]} for point in sweep["rules"]]}
