"""One traced text as one HTML file that needs only a browser."""

import base64
import gzip
import html
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np

from mythos.config.run import RunConfig
from mythos.files import write_text
from mythos.report.facts import describe_model
from mythos.report.theme import DARK, LIGHT, SCHEMES, css_variables
from mythos.report.trace_arrays import TokenTrace
from mythos.report.verdict_lines import verdict_line
from mythos.report.verdicts.check import Verdict
from mythos.report.verdicts.trace import attention, predictions

_DIGITS = 4
"""Decimal places of the numbers on the page; the npz has full precision."""


class Origin(NamedTuple):
    """The source of a trace."""

    config: RunConfig
    step: int
    """Optimiser steps at the checkpoint."""


def write_trace_page(path: Path, trace: TokenTrace, origin: Origin) -> None:
    """Write the page."""
    write_text(path, render(trace, origin))


def render(trace: TokenTrace, origin: Origin) -> str:
    """The whole page as text; equal traces give equal pages."""
    resources = files("mythos.report")
    page = Template(resources.joinpath("trace.html").read_text(encoding="utf-8"))
    return page.substitute(
        name=html.escape(origin.config.run.name),
        model=html.escape(describe_model(origin.config)),
        facts="\n".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts(trace)),
        origin=f"Checkpoint of step {origin.step:,}.",
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        themes=json.dumps(
            {
                scheme: {"surface": palette.surface, "categories": palette.categories}
                for scheme, palette in SCHEMES.items()
            }
        ),
        predictions_verdict=_line(predictions(trace, origin.config), "predictions-verdict"),
        attention_verdict=_line(attention(trace), "attention-verdict"),
        data=_as_json(trace, origin.config),
        maps=_packed_maps(trace),
        script=resources.joinpath("trace.js").read_text(encoding="utf-8"),
    )


def _line(verdict: Verdict | None, key: str) -> str:
    return "" if verdict is None else verdict_line(verdict, key)


def facts(trace: TokenTrace) -> list[tuple[str, str]]:
    """Label and value of each quantity of the text as a whole."""
    num_loops, num_tokens = trace.next_prob_TS.shape
    result = [("Tokens", f"{num_tokens:,}"), ("Loops", f"{num_loops}")]
    if num_tokens > 1:
        nll_T = -np.log(np.maximum(trace.next_prob_TS[:, :-1].astype(np.float64), 1e-30)).mean(1)
        result.append(("Loss after the last loop", f"{nll_T[-1]:.3f} nats"))
        if num_loops > 1:
            result.append((f"Gained from loop 1 to {num_loops}", f"{nll_T[0] - nll_T[-1]:.3f} nats"))
    result.append(("Mean loop of the final prediction", f"{final_prediction_loop(trace).mean():.1f}"))
    if trace.halting_TS is not None:
        loops_T = np.arange(1, num_loops + 1)
        result.append(("Mean exit loop", f"{(loops_T @ trace.halting_TS).mean():.1f}"))
    return result


def final_prediction_loop(trace: TokenTrace) -> np.ndarray:
    """The first loop (from 1) from which on the prediction equals that of the last loop, for each token, ``[S]``."""
    differs_TS = trace.top_token_TSR[:, :, 0] != trace.top_token_TSR[-1, :, 0]
    loop_T = np.arange(1, len(differs_TS) + 1)
    return (differs_TS * loop_T[:, None]).max(0) + 1


def _as_json(trace: TokenTrace, config: RunConfig) -> str:
    """All data but the attention maps; words are indices into ``words``, arrays are flat in row-major order."""
    num_loops, num_tokens, num_predictions = trace.top_token_TSR.shape
    experts = trace.expert_TLSK
    data = {
        "T": num_loops,
        "S": num_tokens,
        "R": num_predictions,
        "L": 0 if experts is None else experts.shape[1],
        "K": 0 if experts is None else experts.shape[3],
        "E": config.model.core_ffn.num_experts if config.model.core_ffn.kind == "moe" else 0,
        "words": trace.word_W.tolist(),
        "tokens": np.searchsorted(trace.word_id_W, trace.token_S).tolist(),
        "top": np.searchsorted(trace.word_id_W, trace.top_token_TSR.ravel()).tolist(),
        "prob": _rounded(trace.top_prob_TSR),
        "next": _rounded(trace.next_prob_TS),
        "entropy": _rounded(trace.entropy_TS),
        "norm": _rounded(trace.state_norm_TS),
        "change": _rounded(trace.relative_change_TS),
        "halting": None if trace.halting_TS is None else _rounded(trace.halting_TS),
        "experts": None if experts is None else experts.ravel().tolist(),
        "layers": trace.layer_C.tolist(),
        "heads": trace.head_H.tolist(),
        "sources": 1 if trace.further_attention_TCHSS is None else 2,
        "gates": None if trace.further_gate_CH is None else _rounded(trace.further_gate_CH),
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(values: np.ndarray) -> list[Any]:
    """Flat, rounded, null where a value is not finite."""
    return [round(value, _DIGITS) if np.isfinite(value) else None for value in values.ravel().tolist()]


def _packed_maps(trace: TokenTrace) -> str:
    """Attention as bytes, 255 times the square root of the weight, compressed; empty when none was requested.

    Those of a second attention follow.
    """
    if not trace.attention_TCHSS.size:
        return ""
    maps = [each for each in (trace.attention_TCHSS, trace.further_attention_TCHSS) if each is not None]
    packed = b"".join(np.rint(255 * np.sqrt(np.clip(each, 0, 1))).astype(np.uint8).tobytes() for each in maps)
    return base64.b64encode(gzip.compress(packed, compresslevel=6, mtime=0)).decode()
