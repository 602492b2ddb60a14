"""Nothing in the code runs what it reads: docs/security.md says so."""

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
    """What a file imports or calls that can run data, or write where an archive says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = [
                word.arg for word in node.keywords if word.arg in TRUE_OPTIONS and ast.unparse(word.value) != "False"
            ]
            found += [name] if name in CALLS or name.rpartition(".")[2] in METHODS else []
            found += [f"{name}({option}=...)" for option in options]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_that_was_read(path: Path) -> None:
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
def test_what_is_looked_for_is_found(source: str) -> None:
    assert unsafe(source)
