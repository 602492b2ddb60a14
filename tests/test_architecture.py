"""The import graph is the architecture: imports point down, heavy dependencies have one room, files are short.

Imports inside functions count as much as those at the top; imports for annotations only are free.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    "config files terminal",
    "types account",
    "layers optim data checkpoint report",
    "moe loop",
    "model losses",
    "parallel",
    "doctor eval export",
    "callbacks",
    "train",
    "api bench sweep",
    "cli",
]
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row.split()}
ROOMS_OF = {
    "deepspeed": {"parallel"},
    "transformers": {"export"},
    "vllm": {"export"},
    "lm_eval": {"eval"},
    "jax": {"twin"},
    "hydra": {"config"},
    "omegaconf": {"config"},
    "plotly": {"report"},
    "matplotlib": {"report"},
    "wandb": {"train"},
    "mlflow": {"train"},
    "trackio": {"train"},
    "submitit": {"sweep"},
    "optuna": {"sweep"},
}
WITHOUT_TORCH = {"config", "account", "files", "terminal", "report", "sweep"}
TORCH = {"torch", "lightning", "mythos.types"}
MAX_LINES = 400
FILES = sorted(path for top in ("mythos", "data_pipelines", "launch") for path in (ROOT / top).rglob("*.py"))


def imported_names(path: Path) -> set[str]:
    """Every module that a file imports, with the names taken from it."""
    tree = ast.parse(path.read_text())
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    free = {id(node) for guard in guards for node in ast.walk(guard)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in free:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room, is_core = room_of(path), path.is_relative_to(ROOT / "mythos")
    for name in imported_names(path):
        top, *rest = name.split(".")
        assert not (is_core and top in ("data_pipelines", "launch")), f"mythos may not import {name}"
        if is_core and top == "mythos" and rest and rest[0] not in (room, "__version__"):
            assert RANK[rest[0]] < RANK[room], f"{room} may not import {name}"
        if top in ROOMS_OF:
            assert is_core, f"{top} belongs in {ROOMS_OF[top]}"
            assert room in ROOMS_OF[top], f"{top} belongs in {ROOMS_OF[top]}, not {room}"
        if (is_core and room in WITHOUT_TORCH) or path.is_relative_to(ROOT / "launch"):
            assert not any(name == heavy or name.startswith(f"{heavy}.") for heavy in TORCH), f"{room} imports {name}"


def test_no_files_import_each_other() -> None:
    module_of = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    modules = set(module_of.values())
    imports = {
        module: {name if name in modules else name.rpartition(".")[0] for name in imported_names(path)} & modules
        for path, module in module_of.items()
    }
    while leaves := [module for module, needed in imports.items() if not needed & imports.keys()]:
        for module in leaves:
            del imports[module]
    assert not imports, f"these files import each other, or files that do: {sorted(imports)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_one_subject(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert ast.get_docstring(ast.parse("\n".join(lines))), f"{path} does not say what it is"


def test_every_room_has_a_rank() -> None:
    rooms = {room_of(path) for path in FILES if path.is_relative_to(ROOT / "mythos")}
    assert rooms - {"__init__"} <= RANK.keys()


def test_the_top_level_is_fixed() -> None:
    allowed = set("pyproject.toml mythos conf launch data_pipelines tests Dockerfile README.md".split())
    allowed |= set("Makefile constraints.txt CHANGELOG.md LICENSE docs data runs dist wandb".split())
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__"))}
    assert found <= allowed
