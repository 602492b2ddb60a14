import inspect

import pytest

from mythos.config import records

NAMING = {
    name: function
    for name, function in inspect.getmembers(records, inspect.isfunction)
    if name not in ("index_of", "layer_of")
}
BY_LAYER_AND_LOOP = [f for f in NAMING.values() if list(inspect.signature(f).parameters) == ["layer", "loop"]]
BY_LOOP = [f for f in NAMING.values() if list(inspect.signature(f).parameters) == ["loop"]]


@pytest.mark.parametrize("name_of", BY_LAYER_AND_LOOP)
def test_layer_and_loop_are_read_back_from_a_name(name_of) -> None:
    assert records.layer_of(name_of(3, 112)) == 3
    assert records.index_of(name_of(3, 112)) == 112


@pytest.mark.parametrize("name_of", BY_LOOP)
def test_a_loop_is_read_back_from_a_name_without_layer(name_of) -> None:
    assert records.index_of(name_of(7)) == 7
    assert records.layer_of(name_of(7)) is None


def test_a_layer_alone_is_not_a_loop() -> None:
    assert records.layer_of(records.idle_steps(2)) == 2
    assert records.index_of(records.idle_steps(2)) is None


def test_no_two_functions_give_the_same_name() -> None:
    arguments = {"layer": 1, "loop": 1, "num_loops": 1, "group": "hidden", "term": "z", "name": "z", "gate": "loop/x/y"}
    names = [
        function(*(arguments[parameter] for parameter in inspect.signature(function).parameters))
        for function in NAMING.values()
    ]
    names += [value for key, value in vars(records).items() if key.isupper()]
    assert len(set(names)) == len(names)
    metrics = [str(name) for name in names if name not in (records.EXPERT_LOAD, records.EXPERT_LOAD_LAYERS)]
    for name in metrics:
        assert not any(other.startswith(f"{name}/") for other in metrics), name
