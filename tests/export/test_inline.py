import ast
import compileall
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mythos.export import inline
from mythos.export.fold import fold
from mythos.export.inline import LEFT_OUT, REPLACED, inlined

ENTRY = ("mythos.export.modeling", "MythosForCausalLM")


def test_the_exported_code_compiles_and_imports_nothing_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "modeling_mythos.py"
    path.write_text(inlined(ENTRY, "A header."))
    assert compileall.compile_file(path, quiet=1)
    tree = ast.parse(path.read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {
        "torch",
        "transformers",
        "configuration_mythos",
    }
    assert "import mythos" not in path.read_text()
    assert "from mythos" not in path.read_text()
    assert "torch.library" not in path.read_text()
    assert ast.get_docstring(tree) == "A header."
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(names) == len(set(names))
    assert {"Mythos", "Core", "MoE", "LatentAttention", "DecodeCache"} <= set(names)
    assert not any("fused" in name or "Batch" in name for name in names)


def test_unchanged_definitions_are_copied_verbatim() -> None:
    text, source = inlined(ENTRY, ""), Path("mythos/layers/attention_part.py")
    path = Path(inline.__file__).parents[2] / source
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("class LayerInputs"))
    end = next(number for number, line in enumerate(lines) if line.startswith("NO_INPUTS"))
    assert "\n".join(lines[start:end]).strip() in text


@pytest.mark.parametrize("module", REPLACED)
def test_replaced_expressions_exist_in_the_package(module: str) -> None:
    path = Path(inline.__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    expressions = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.expr)}
    assert REPLACED[module].keys() <= expressions


@pytest.mark.parametrize("key", LEFT_OUT)
def test_members_that_are_left_out_exist_in_the_package(key: tuple[str, str]) -> None:
    owner = getattr(importlib.import_module(key[0]), key[1])
    source = Path(sys.modules[key[0]].__file__ or "").read_text()
    for name in LEFT_OUT[key]:
        assert hasattr(owner, name) or f"self.{name}: " in source


def test_constants_remove_unreachable_branches_and_nothing_else() -> None:
    node = ast.parse(
        "def f(x):\n"
        "    if fast(x) and x > 1:\n        return 1\n"
        "    if not fast(x):\n        y = 2\n    else:\n        y = 3\n"
        "    if x or not fast(x):\n        return y\n"
        "    return 4\n"
    ).body[0]
    expected = "def f(x):\n    y = 2\n    return y"
    assert ast.unparse(fold(node, {"fast(x)": "False"})) == expected


def package(root: Path, **sources: str) -> None:
    for name, source in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def run(source: str) -> ModuleType:
    module = ModuleType("exported")
    exec(compile(source, "exported", "exec"), module.__dict__)
    return module


def test_definitions_appear_once_after_their_dependencies_without_unmentioned_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "_PACKAGE", tmp_path)
    package(
        tmp_path,
        a__top="from math import pi\nfrom mythos.b import low\nfrom mythos.b.low import Base, twice\n\n\n"
        "class Top(Base):\n    def __call__(self, base: Base) -> float:\n"
        "        return low.scale(pi) + twice(self.one())\n",
        b__low="import json\n\nFACTOR = 2\n\n\ndef scale(x):\n    return FACTOR * x\n\n\ndef twice(x):\n"
        "    scale = lambda y: 2 * y\n    return scale(x)\n\n\n"
        "class Base:\n    def one(self):\n        return 1\n\n    def dump(self):\n        return json.dumps(self)\n",
    )
    text = inlined(("mythos.a.top", "Top"), "")
    module = run(text)
    assert abs(module.Top()(None) - (2 * 3.14159265 + 2)) < 1e-6
    assert text.count("def scale") == 1
    assert "dump" not in text
    assert "json" not in text
    assert text.index("class Base") < text.index("class Top")


def test_two_definitions_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "_PACKAGE", tmp_path)
    package(
        tmp_path,
        a__one="from mythos.a.two import g\n_TINY = 1\n\n\ndef f():\n    return g() + _TINY\n",
        a__two="_TINY = 2\n\n\ndef g():\n    return _TINY\n",
    )
    with pytest.raises(AssertionError, match="_TINY is defined in mythos"):
        inlined(("mythos.a.one", "f"), "another")
