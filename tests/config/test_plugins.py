import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mythos.config import plugins
from mythos.config.base import ConfigError

GROUP = "mythos.things"
SOURCE = "class Good:\n    build = staticmethod(lambda: 7)\n"


def test_names_are_listed_without_importing(install: Callable[..., None]) -> None:
    install("foreign_a", "1.2", SOURCE, things=["wave = foreign_a:Good", "drift = foreign_a:Good"])
    install("foreign_b", "0.3", "raise RuntimeError('imported')", things=["tide = foreign_b:Good"])
    assert list(plugins.names(GROUP)) == ["drift", "tide", "wave"]
    assert plugins.names(GROUP)["wave"].value == "foreign_a:Good"
    assert plugins.described(GROUP) == [
        ("drift", "foreign_a", "1.2"),
        ("tide", "foreign_b", "0.3"),
        ("wave", "foreign_a", "1.2"),
    ]
    assert plugins.find(GROUP, "tide", "a.b").name == "tide"
    assert plugins.names("mythos.nothing") == {}
    assert not {"foreign_a", "foreign_b"} & sys.modules.keys()


def test_only_the_chosen_package_is_imported(install: Callable[..., None]) -> None:
    install("foreign_a", "1.2", SOURCE, things=["wave = foreign_a:Good"])
    install("foreign_b", "0.3", "raise RuntimeError('imported')", things=["tide = foreign_b:Good"])
    assert plugins.load(GROUP, "wave", "a.b", fields=["build"]).build() == 7
    assert "foreign_b" not in sys.modules


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wavy", "a.b: 'wavy' was given, but no installed package declares it under the entry points 'mythos.things'; "
                 "did you mean 'wave'?"),
        ("xyz", "a.b: 'xyz' was given, but no installed package declares it under the entry points 'mythos.things'; "
                "known here: broken, twice, void, wave."),
        ("broken", "a.b: foreign_b:Good of foreign_b 0.3 cannot be imported (ModuleNotFoundError: No module named "
                   "'absent_library'); repair that package or choose another."),
        ("void", "a.b: foreign_a:Void of foreign_a 1.2 cannot be imported (AttributeError: module 'foreign_a' has no "
                 "attribute 'Void'); repair that package or choose another."),
        ("wave", "a.b: foreign_a:Good of foreign_a 1.2 lacks cost; it needs build, cost."),
        ("twice", "a.b: 'twice' was given, but 2 installed packages, foreign_a and foreign_b, declare it under the "
                  "entry points 'mythos.things'; uninstall all but one."),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_with_the_path(install: Callable[..., None], name: str, sentence: str) -> None:
    things = ["wave = foreign_a:Good", "void = foreign_a:Void", "twice = foreign_a:Good"]
    install("foreign_a", "1.2", SOURCE, things=things)
    broken = ["broken = foreign_b:Good", "twice = foreign_b:Good"]
    install("foreign_b", "0.3", "import absent_library", things=broken)
    with pytest.raises(ConfigError) as error:
        plugins.load(GROUP, name, "a.b", fields=["build", "cost"])
    assert str(error.value) == sentence


def test_the_module_needs_no_torch() -> None:
    code = "import sys, mythos.config.plugins; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(plugins.__file__).parents[2])
