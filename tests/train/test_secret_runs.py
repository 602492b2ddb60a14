"""A run with secrets in its environment: it writes no secret and no pickle, and others may not write its files."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mythos

SECRETS = {
    "WANDB_API_KEY": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
    "HF_TOKEN": "hf_hunterhunterhunterhunterhunterhunt",
    "AWS_ACCESS_KEY_ID": "AKIAHUNTERHUNTERHUNT",
    "AWS_SECRET_ACCESS_KEY": "hunter/aws/secret/0123456789",
    "MLFLOW_TRACKING_PASSWORD": "hunter-mlflow-password",
}
REMOTE_PASSWORD = "hunter-remote-password"
CODE_PASSWORD = "hunter-code-password"
SMALL = """model=debug data.seq_len=32 data.batch_size=4 data.micro_batch_size=4 depth.mean=2 run.num_steps=2
run.validation.every=2 run.validation.num_batches=2 run.checkpoint.every=1 tracking=wandb tracking.mode=offline
tracking.log_every=1 parallel.device=cpu schedule.num_warmup_steps=1 run.name=run""".split()


@pytest.fixture(scope="module")
def run(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from a checkout with a password in its remote and in its changes, under a umask that allows everything."""
    root = tmp_path_factory.mktemp("secrets")
    checkout = root / "checkout"
    for folder in ("mythos", "conf"):
        source = Path(mythos.__file__).parents[1] / folder
        shutil.copytree(source, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    remote = ["remote", "add", "origin", f"https://me:{REMOTE_PASSWORD}@example.org/mythos.git"]
    for words in (["init", "-q"], ["add", "-f", "."], ["commit", "-q", "-m", "a", "--no-gpg-sign"], remote):
        subprocess.run([*git, *words], check=True)
    (checkout / "mythos" / "__init__.py").open("a").write(f'password = "{CODE_PASSWORD}"\n')
    (checkout / "mythos" / ".env").write_text(f"PASSWORD={CODE_PASSWORD}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mythos.cli.main", "train", *SMALL, f"data.dir={packed}", f"run.dir={root / 'runs'}"],
        env=os.environ | SECRETS | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
        cwd=root,
        capture_output=True,
        text=True,
        umask=0,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    directory = root / "runs" / "run"
    (directory / "output.txt").write_text(done.stdout + done.stderr)
    return directory


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_the_searched_files_are_complete(run: Path) -> None:
    names = {path.name for path in files(run)}
    assert {"config.json", "metrics.jsonl", "step-00000000.json", "step-00000000.diff", "manifest.json"} <= names
    (sent,) = run.glob("wandb/offline-run-*/run-*.wandb")
    assert b"num_warmup_steps" in sent.read_bytes(), "the configuration, not compressed"
    assert "withheld: looks like a credential" in (run / "provenance" / "step-00000000.diff").read_text()


@pytest.mark.parametrize("name", [*SECRETS, "remote", "code"])
def test_no_secret_is_written(run: Path, name: str) -> None:
    secret = {**SECRETS, "remote": REMOTE_PASSWORD, "code": CODE_PASSWORD}[name].encode()
    assert [str(path) for path in files(run) if secret in path.read_bytes()] == []


def test_nothing_is_a_pickle(run: Path) -> None:
    for path in files(run):
        content = path.read_bytes()
        assert path.suffix not in {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"}, path
        assert not (content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05"), path
        if zipfile.is_zipfile(io.BytesIO(content)):
            assert not [name for name in zipfile.ZipFile(path).namelist() if name.endswith(".pkl")], path


def test_other_users_may_not_write(run: Path) -> None:
    for path in (run.parent, run, *run.rglob("*")):
        if path.name != "output.txt" and not path.is_symlink():
            assert path.stat().st_mode & 0o022 == 0, path
    assert (run / "lock").stat().st_mode & 0o777 == 0o644
    assert run.stat().st_mode & 0o777 == 0o755
