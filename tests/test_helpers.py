import re
from itertools import product
from pathlib import Path

import pytest
from helpers import pairs, pairwise, product_cases

FACTORS = [
    ((0, 1, 2, 3), (1, 2), ("none", "loop"), (2, 4)),
    ((0, 1, 2), (1, 2), (("none", 2), ("none", 4), ("loop", 2))),
    ("abc", "de"),
    ("a", "bcd", "ef", "gh", "ij", "kl"),
]


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_every_pair_of_values_occurs_in_few_cases(factors: tuple) -> None:
    cases, matrix = pairwise(*factors), list(product(*factors))
    assert set().union(*map(pairs, cases)) == set().union(*map(pairs, matrix))
    assert len(cases) == len(set(cases)) <= len(matrix)
    assert set(cases) <= set(matrix)
    assert pairwise(*factors) == cases, "the same cases each time"


def test_few_cases_are_about_the_product_of_the_two_largest_factors() -> None:
    assert [len(pairwise(*factors)) for factors in FACTORS] == [4 * 2, 3 * 3, 3 * 2, 3 * 2 + 1]
    assert [len(list(product(*factors))) for factors in FACTORS] == [32, 18, 6, 48]


def test_what_pairwise_leaves_out_is_marked() -> None:
    cases = product_cases(*FACTORS[0])
    assert [case.values for case in cases] == list(product(*FACTORS[0]))
    unmarked = [case.values for case in cases if not case.marks]
    assert sorted(unmarked) == sorted(pairwise(*FACTORS[0]))
    assert {mark.name for case in cases for mark in case.marks} == {"all"}


def test_pytest_alone_bounds_the_time_of_a_test() -> None:
    """A loaded machine exceeds bounds that were chosen on an idle one."""
    waits = r"\.(wait|join|communicate|acquire)\(\d"
    bound = re.compile(rf"\b(timeout|deadline)=\d|mark\.timeout\(\d{{1,3}}\)|{waits}")
    assert [path.name for path in Path(__file__).parent.rglob("*.py") if bound.search(path.read_text())] == []
