"""Verdicts as HTML: one line in a section, and a summary of all sections at the top."""

import html
import re

from mythos.report.verdicts.check import Level, Verdict

_MARKS = {Level.GREEN: "✓", Level.AMBER: "!", Level.RED: "✕"}


def anchor(title: str) -> str:
    """The id of a section's heading."""
    return "section-" + re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def verdict_line(verdict: Verdict, key: str) -> str:
    """One verdict as a paragraph: its mark, its colour as a word, its text."""
    badge = f"<b>{_MARKS[verdict.level]} {verdict.level.word.capitalize()}</b>"
    return f'<p class="verdict {verdict.level.word}" id="{key}">{badge} {html.escape(verdict.text)}</p>'


def summary(verdicts: dict[str, Verdict]) -> str:
    """Links to the sections, the worst first, each with its mark; empty without verdicts."""
    if not verdicts:
        return ""
    links = "".join(
        f'<a class="{verdict.level.word}" href="#{anchor(title)}"><b>{_MARKS[verdict.level]}</b> {title}</a>'
        for title, verdict in sorted(verdicts.items(), key=lambda item: -item[1].level)
    )
    return f'<nav class="health" id="health" aria-label="Verdicts">{links}</nav>\n'
