import math

import pytest

from mythos.report.verdict_lines import anchor, summary, verdict_line
from mythos.report.verdicts.check import Check, Level, Verdict, judge

TOO_HIGH = Check("the loss rose by {}", 0.0, 0.02, 0.2, "lower optim.lr")


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.02, Level.GREEN), (0.0201, Level.AMBER), (0.2, Level.AMBER), (0.21, Level.RED), (math.nan, Level.RED)],
)
def test_a_value_on_a_limit_is_within_it_and_one_that_is_no_number_is_beyond(value: float, level: Level) -> None:
    assert TOO_HIGH._replace(value=value).level == level
    assert TOO_HIGH._replace(value=-value, amber=-0.02, red=-0.2, is_floor=True).level == level


def test_limits_are_stated_in_the_unit_of_the_value() -> None:
    assert TOO_HIGH.limits == "amber above 0.02, red above 0.2"
    assert TOO_HIGH._replace(is_share=True, is_floor=True).limits == "amber below 2%, red below 20%"
    assert TOO_HIGH._replace(amber=None, red=1e5).limits == "red above 100,000"


def test_a_green_verdict_states_every_value_and_a_worse_one_what_to_do() -> None:
    good = Check("the norm is 1", 1.0, 2.0, None, "raise depth.mean")
    assert judge([good, None, TOO_HIGH]) == Verdict(
        Level.GREEN, "The norm is 1 (amber above 2). The loss rose by {} (amber above 0.02, red above 0.2)."
    )
    assert judge([good, TOO_HIGH._replace(value=0.1)]) == Verdict(
        Level.AMBER, "The loss rose by {} (amber above 0.02, red above 0.2). Lower optim.lr."
    )
    assert judge([good._replace(value=3.0), TOO_HIGH._replace(value=1.0)]).level == Level.RED
    assert judge([None]) is None


def test_a_line_has_a_mark_and_a_word_beside_its_colour() -> None:
    line = verdict_line(Verdict(Level.RED, "a < b"), "key")
    assert line == '<p class="verdict red" id="key"><b>✕ Red</b> a &lt; b</p>'
    verdicts = {"Loss": Verdict(Level.GREEN, ""), "Speed and memory": Verdict(Level.AMBER, "")}
    links = summary(verdicts)
    assert links.index(f'<a class="amber" href="#{anchor("Speed and memory")}"><b>!</b>') < links.index('class="green"')
    assert anchor("Speed and memory") == "section-speed-and-memory"
    assert summary({}) == ""
