"""The wheel: its name, what is in it, and the commands it installs."""

import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

import mythos
from mythos.config.extras import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel of this checkout, built by its own build backend without isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.iterdir()
    return ZipFile(path)


def read(wheel: ZipFile, name: str) -> bytes:
    return wheel.read(f"mythos_pretrain-{mythos.__version__}.dist-info/{name}")


def test_the_distribution_has_a_name_of_its_own(wheel: ZipFile) -> None:
    metadata = message_from_bytes(read(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == (DISTRIBUTION, mythos.__version__) == ("mythos-pretrain", "0.1.0")
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS.keys()


def test_the_wheel_installs_both_commands(wheel: ZipFile) -> None:
    entries = ConfigParser()
    entries.read_string(read(wheel, "entry_points.txt").decode())
    scripts = {"mythos": "mythos.cli.main:main", "mythos-data": "data_pipelines.cli:main"}
    assert dict(entries["console_scripts"]) == scripts


def test_the_wheel_holds_code_configuration_and_type_markers(wheel: ZipFile) -> None:
    names = set(wheel.namelist())
    conf = {f"mythos/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    code = {str(path.relative_to(ROOT)) for top in ("mythos", "data_pipelines") for path in (ROOT / top).rglob("*.py")}
    assert len(conf) > 50
    assert conf | code | {"mythos/py.typed", "data_pipelines/py.typed"} <= names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"mythos", "data_pipelines", "mythos_pretrain"}


def test_messages_name_extras_that_exist() -> None:
    assert install_command() == "pip install -e . in a clone of Mythos"
    assert install_command("s3") == "pip install -e '.[s3]' in a clone of Mythos"
    code = "\n".join(path.read_text() for top in ("mythos", "data_pipelines") for path in (ROOT / top).rglob("*.py"))
    pages = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = set(re.findall(r"install_command\([\"'](\w+)[\"']", code)) | set(re.findall(r"'\.\[(\w+)\]'", pages))
    assert {"data", "eval", "flash", "report", "s3", "sweep"} <= named <= EXTRAS.keys()
    listed = re.search(r"# extras: (.*)", pages)
    assert listed is not None
    assert listed[1].split() == sorted(EXTRAS)
    assert not re.search(r"mythos\[\w+\]", code + pages), "an index would bring another project"
