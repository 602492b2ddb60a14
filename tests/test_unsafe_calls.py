"""Checks the claim of docs/security.md that the code executes nothing that it reads."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("mythos", "data_pipelines", "launch") for path in (ROOT / top).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "tempfile.mktemp",
}
METHODS = {"extractall", "unpack_archive", "read_pickle"}
TRUE_OPTIONS = {"shell", "allow_pickle", "trust_remote_code"}


def unsafe(source: str) -> list[str]:
    """Imports and calls in a source text that can execute data, or write to paths given by an archive."""
    result = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            result += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            result.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = [
                word.arg for word in node.keywords if word.arg in TRUE_OPTIONS and ast.unparse(word.value) != "False"
            ]
            result += [name] if name in CALLS or name.rpartition(".")[2] in METHODS else []
            result += [f"{name}({option}=...)" for option in options]
    return result


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_executes_what_it_reads(path: Path) -> None:
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(p)",
        "load_dataset(name, trust_remote_code=flag)",
    ],
)
def test_unsafe_calls_are_found(source: str) -> None:
    assert unsafe(source)
