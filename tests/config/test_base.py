"""Declaration and decoding of configuration: refusals, their messages, and round trips."""

import dataclasses
import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from mythos.config.base import (
    ConfigError,
    Count,
    Fraction,
    Positive,
    PositiveInts,
    config,
    decode,
    difference,
    encode,
    fingerprint,
    flatten,
    suggestion,
)


@config
class Square:
    kind: Literal["square"] = "square"
    side: Positive


@config
class Circle:
    kind: Literal["circle"] = "circle"
    radius: Positive
    center: Count = 0


@config
class Limits:
    low: Count
    high: Count

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is {self.low} but high is {self.high}; swap them.")


@config
class Drawing:
    shape: Annotated[Square | Circle, Field(discriminator="kind")]
    limits: Limits
    opacity: Fraction = 1.0
    layers: PositiveInts = (1, 2)
    title: str | None = None


GOOD: dict[str, Any] = {"shape": {"kind": "circle", "radius": 2}, "limits": {"low": 1, "high": 3}}


def message(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        decode(Drawing, raw)
    return str(caught.value)


def test_decodes_into_frozen_dataclasses_with_defaults():
    drawing = decode(Drawing, GOOD)
    assert drawing.shape == Circle(radius=2.0)
    assert (drawing.opacity, drawing.layers) == (1.0, (1, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawing.opacity = 0.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"opacty": 1}, "opacty: no such key; did you mean 'opacity'?"),
        ({"zzz": 1}, "zzz: no such key; known here: layers, limits, opacity, shape, title."),
        (
            {"shape": {"kind": "circle", "radius": 2, "centr": 1}},
            "shape.centr: no such key; did you mean 'center'?",
        ),
        (
            {"shape": {"kind": "square", "side": 1, "radius": 1}},
            "shape.radius: no such key; known here: kind, side.",
        ),
        ({"limits": {"low": 1}}, "limits.high: a value is needed and none was given."),
        ({"shape": {"kind": "circle"}}, "shape.radius: a value is needed and none was given."),
        (
            {"shape": {"kind": "hexagon"}},
            "shape.kind: 'hexagon' was given; it is one of 'square', 'circle'.",
        ),
        ({"limits": {"low": 5, "high": 3}}, "limits: low is 5 but high is 3; swap them."),
        (
            {"limits": {"low": 1.5, "high": 3}},
            "limits.low: input should be a valid integer, but 1.5 was given.",
        ),
        (
            {"limits": {"low": True, "high": 3}},
            "limits.low: input should be a valid integer, but True was given.",
        ),
        ({"opacity": 2}, "opacity: input should be less than or equal to 1, but 2 was given."),
        (
            {"shape": {"kind": "square", "side": float("inf")}},
            "shape.side: input should be a finite number, but inf was given.",
        ),
    ],
)
def test_one_sentence_for_one_mistake(changes, expected):
    assert message(GOOD | changes) == expected


def test_every_mistake_gets_its_own_line():
    lines = message({"shape": {"kind": "square", "side": -1}, "limits": {"low": 1, "high": "x"}}).splitlines()
    assert [line.split(":")[0] for line in lines] == ["shape.side", "limits.high"]


def test_round_trip_through_json():
    drawing = decode(Drawing, GOOD | {"layers": [3, 4], "title": "a"})
    assert decode(Drawing, json.loads(json.dumps(encode(drawing)))) == drawing


def test_fingerprint_follows_every_field_and_nothing_else():
    leaves = [
        {},
        {"opacity": 0.5},
        {"layers": [2, 1]},
        {"title": "a"},
        {"limits": {"low": 0, "high": 3}},
        {"shape": {"kind": "circle", "radius": 2, "center": 1}},
    ]
    prints = [fingerprint(decode(Drawing, GOOD | leaf)) for leaf in leaves]
    assert len(set(prints)) == len(leaves)
    assert fingerprint(decode(Drawing, GOOD)) == prints[0]
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in prints)


def test_difference_names_each_changed_path():
    old = encode(decode(Drawing, GOOD))
    new = encode(decode(Drawing, GOOD | {"opacity": 0.5, "shape": {"kind": "square", "side": 2}}))
    assert difference(old, old) == []
    assert difference(old, new) == [
        "opacity: 1.0 -> 0.5",
        "shape.center: 0 -> (absent)",
        "shape.kind: circle -> square",
        "shape.radius: 2.0 -> (absent)",
        "shape.side: (absent) -> 2.0",
    ]


def test_flatten_joins_paths_with_dots():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_suggestion_offers_the_nearest_word_or_lists_them():
    assert suggestion("dmi", ["dim", "vocab_size"]) == "did you mean 'dim'?"
    assert suggestion("xyz", ["b", "a"]) == "known here: a, b."
