"""Verdicts on one traced text."""

import numpy as np

from mythos.config.run import RunConfig
from mythos.report.trace_arrays import TokenTrace
from mythos.report.verdicts.check import Check, Verdict, judge
from mythos.report.verdicts.state import LAST_CHANGE

FIRST_TOKEN = (0.8, 0.95)
"""Mean attention weight of the first token for later ones: amber, red."""


def predictions(trace: TokenTrace, config: RunConfig) -> Verdict | None:
    """Whether the loops make the text more probable, and whether the state settles."""
    num_loops, num_tokens = trace.next_prob_TS.shape
    if num_loops < 2:
        return None
    checks = [_last_change(trace)]
    if num_tokens > 1:
        checks.append(_gain(trace, config))
    return judge(checks)


def attention(trace: TokenTrace) -> Verdict | None:
    """Whether later tokens attend to more than the first one, on average over loops, layers and heads."""
    if trace.attention_TCHSS.size == 0 or len(trace.token_S) < 2:
        return None
    share = float(trace.attention_TCHSS[..., 1:, 0].mean())
    finding = f"the first token takes {100 * share:.0f}% of the attention of the later ones"
    advice = "most heads attend to little else: lower model.attention.num_heads, or train longer"
    return judge([Check(finding, share, *FIRST_TOKEN, advice, is_share=True)])


def _gain(trace: TokenTrace, config: RunConfig) -> Check:
    nll_T = -np.log(np.maximum(trace.next_prob_TS[:, :-1].astype(np.float64), 1e-30)).mean(1)
    share = float((nll_T[0] - nll_T[-1]) / nll_T[0])
    finding = f"the decrease of the loss on this text from 1 loop to {len(nll_T)} is {100 * share:.2g}%"
    advice = "on this text the loops add nothing: try a longer one, train longer, or lower depth.mean"
    limit = config.telemetry.alarms.ignored_state
    return Check(finding, share, limit, -limit, advice, is_floor=True, is_share=True)


def _last_change(trace: TokenTrace) -> Check:
    change = float(trace.relative_change_TS[-1].mean())
    finding = f"the last loop still changes the state by {100 * change:.2g}% on average"
    advice = "give more loops with --num-loops, or train on more with depth.mean"
    return Check(finding, change, *LAST_CHANGE, advice, is_share=True)
