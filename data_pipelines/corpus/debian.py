"""Download documentation from Debian packages at pinned versions, without installing them."""

import subprocess
import tempfile
from pathlib import Path

from tqdm import tqdm

from data_pipelines.corpus.config import CorpusConfig, DebianPackage, DebianSource
from data_pipelines.corpus.sources import resolve
from mythos.config.base import ConfigError
from mythos.files import replacing


def fetch_debian(corpus: CorpusConfig) -> list[Path]:
    """Download and unpack every package that is not there yet; return the folders, one per source.

    Raises:
        ConfigError: the corpus names no package, or apt-get or dpkg-deb is missing or fails.
    """
    sources = [source for source in corpus.sources.values() if isinstance(source, DebianSource)]
    if not sources:
        raise ConfigError("sources: none is of kind debian, so there is nothing to fetch; run mythos-data clean.")
    for source in sources:
        folder = resolve(corpus, source.dir)
        for name, package in tqdm(source.packages.items(), desc="fetch", unit="package"):
            if not (folder / name).is_dir():
                _fetch(name, package, folder / name)
    return [resolve(corpus, source.dir) for source in sources]


def _fetch(name: str, package: DebianPackage, target: Path) -> None:
    version = package.version
    with tempfile.TemporaryDirectory() as downloads, replacing(target) as partial:
        _run(["apt-get", "download", "--quiet", f"{name}={version}"], Path(downloads), name, version)
        (archive,) = Path(downloads).glob("*.deb")
        _run(["dpkg-deb", "--extract", str(archive), str(partial.absolute())], Path(downloads), name, version)
        documents = {*partial.glob(package.pattern), *partial.glob("**/copyright")}
        for path in [*partial.rglob("*")]:
            # Links may lead out of the package.
            if path.is_symlink() or (path.is_file() and path not in documents):
                path.unlink()


def _run(command: list[str], directory: Path, name: str, version: str) -> None:
    try:
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} is not installed; fetch packages on a Debian or Ubuntu machine.") from None
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("E: ")
        raise ConfigError(
            f"{command[0]} failed for {name}={version} ({reason}); run apt-get update, or, if the archive no longer "
            "has the version, get it from snapshot.debian.org."
        )
