"""Submission of a run by one command: frozen files, refusals, output."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.submit import main
from mythos.config.load import load
from mythos.train.code_state import code_state

ROOT = Path(__file__).parents[2]
SMALL = ["model=debug", "optim=adamw", "parallel=zero1", "data.seq_len=32", "data.micro_batch_size=2", "run.name=first"]
TWO_NODES = [*SMALL, "cluster=slurm", "cluster.num_nodes=2", "cluster.gpus_per_node=0"]
HAND = [*SMALL, "cluster=torchrun", "cluster.num_nodes=2"]
PODS = [
    *[*SMALL, "cluster=kubernetes", "cluster.num_nodes=2", "cluster.image=registry/mythos:1"],
    *["run.dir=/runs", "data.dir=/data/packed", "cluster.volume_claims={runs: /runs, data: /data}"],
]


@pytest.fixture
def slurm(commands):
    """A scheduler that accepts every job with ID 7 and has none in its queue."""
    commands.add("sbatch", "echo 7")
    commands.add("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    return commands


def refusal(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err.removeprefix("submit: ").strip()


def test_a_submission_imports_no_torch(packed: Path, tmp_path: Path) -> None:
    code = "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: print(end.code, 'torch' in sys.modules, file=sys.stderr)"
    arguments = [str(ROOT / "launch" / "submit.py"), *TWO_NODES, f"data.dir={packed}", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "0 False"
    assert "#SBATCH --nodes=2\n" in done.stdout
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


def test_configuration_and_code_are_frozen_in_the_run_directory(slurm, packed: Path, capsys) -> None:
    overrides = [*TWO_NODES, f"data.dir={packed}"]
    assert main(overrides) == 0
    folder = Path.cwd() / "runs" / "first" / "submissions" / "001"
    assert slurm.calls == [f"sbatch --parsable {folder}/job.sh"]
    assert load([], folder) == load([*overrides, "resume=auto"])

    facts = json.loads((folder / "submission.json").read_text())
    assert facts["overrides"] == overrides
    assert code_state(folder / "code") == code_state(ROOT), "the copy has the state of its source"
    assert facts["code"]["commit"] == code_state(ROOT)[0]
    source = {path.relative_to(ROOT) for path in (ROOT / "mythos").rglob("*.py")}
    assert {path.relative_to(folder / "code") for path in (folder / "code").rglob("*.py")} == source
    assert json.loads((folder / "submitted.json").read_text())["job"] == "7"
    output = capsys.readouterr().out
    assert "job:       7\n" in output
    assert "stop:      scancel 7\n" in output


def test_the_frozen_copy_is_what_runs_and_not_the_checkout(slurm, packed: Path) -> None:
    assert main([*TWO_NODES, f"data.dir={packed}"]) == 0
    folder = Path.cwd() / "runs" / "first" / "submissions" / "001"
    environment = os.environ | {"PYTHONPATH": str(folder / "code"), "PYTHONSAFEPATH": "1"}
    python = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    code = "import mythos; print(mythos.__file__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, **python)
    assert done.stdout.strip() == str(folder / "code" / "mythos" / "__init__.py")
    command = [sys.executable, "-m", "mythos.cli.main", "train", "--config-dir", str(folder)]
    done = subprocess.run(command, check=False, **python)
    assert "cluster.num_nodes is 2" in done.stderr, "mythos train has read train.yaml"


@pytest.mark.parametrize("name", ["größe-\U0001f680", "naïve=1"])
def test_a_job_reads_the_configuration_that_was_submitted(commands, packed: Path, name: str) -> None:
    overrides = [*HAND, f"data.dir={packed}", "cluster.master_address=a", f"run.name='{name}'"]
    assert main(overrides) == 0
    folder = Path.cwd() / "runs" / name / "submissions" / "001"
    assert load([], folder).run.name == name
    assert load([], folder) == load([*overrides, "resume=auto"])


def test_a_configuration_that_would_be_read_back_otherwise_is_refused(packed: Path, capsys) -> None:
    overrides = [*HAND, f"data.dir={packed}", "cluster.master_address=a"]
    assert main([*overrides, r"run.init_from='a\${run.name}'", "--dry-run"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "change these values:\n  run.init_from: a${run.name} -> afirst\n" in output.err


@pytest.mark.parametrize("cluster", [HAND[len(SMALL) :], TWO_NODES[len(SMALL) :]])
@pytest.mark.parametrize("where", ["run.dir=a:b", "run.name=a:b", "folder"])
def test_a_folder_that_python_would_split_is_refused(
    packed: Path, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: list[str], where: str
) -> None:
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path / "a:b" if where == "folder" else tmp_path)
    overrides = [*SMALL, *cluster, f"data.dir={packed}", *([where] if "=" in where else [])]
    overrides += ["cluster.master_address=a"] if "cluster=torchrun" in overrides else []
    assert "which Python would split at the colon" in refusal(capsys, *overrides, "--dry-run")


@pytest.mark.parametrize("folder", ["a b", "a%j", "a#b", "it's", 'a"b', "a\\b", "a\tb"])
def test_a_working_directory_that_sbatch_would_change_is_refused(
    packed: Path, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    message = refusal(capsys, *TWO_NODES, f"data.dir={packed}", "--dry-run")
    assert message.startswith(
        f"run.dir is {str(tmp_path / folder / 'runs' / 'first' / 'submissions' / '001')!r}, which is"
    )
    message = refusal(capsys, *TWO_NODES, f"data.dir={packed}", f"run.dir={tmp_path}/runs", "--dry-run")
    assert message.startswith(f"the working directory is {str(tmp_path / folder)!r}, which is not valid in a directive")


def test_a_run_is_submitted_once(slurm, packed: Path, capsys) -> None:
    overrides = [*TWO_NODES, f"data.dir={packed}", "resume=auto"]
    assert main(overrides) == 0
    capsys.readouterr()
    slurm.add("squeue", "echo PENDING")
    assert "first belongs to SLURM job 7 (pending); wait, end it with scancel 7, or" in refusal(capsys, *overrides)
    slurm.add("squeue", "")
    assert main(overrides) == 0, "the job is gone"
    assert [path.name for path in sorted(Path("runs/first/submissions").glob("0*"))] == ["001", "002"]
    capsys.readouterr()

    with Path("runs/first/lock").open("w") as training:
        fcntl.flock(training, fcntl.LOCK_EX)
        assert "is being trained in by" in refusal(capsys, *overrides)
    with Path("runs/first/submissions/lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "is being submitted by another process" in refusal(capsys, *overrides)


def test_a_submission_that_the_scheduler_refuses_leaves_no_files(commands, packed: Path, capsys) -> None:
    commands.add("squeue")
    commands.add("sbatch", "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    message = refusal(capsys, *TWO_NODES, f"data.dir={packed}")
    assert message == "sbatch failed (sbatch: error: invalid partition specified: nope); nothing was submitted."
    assert list(Path("runs/first/submissions").glob("0*")) == []
    assert list(Path.cwd().iterdir()) == [], "neither a folder of the run nor a lock"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["cluster=local"],
            "cluster.kind is local, which mythos train starts by itself; set cluster to one of torchrun",
        ),
        (TWO_NODES, "cluster.kind is slurm but there is no sbatch on this machine; "),
        (PODS, "cluster.kind is kubernetes but there is no kubectl on this machine; "),
        ([*HAND, "cluster.hosts=[a,b]"], "cluster.kind is torchrun but there is no ssh on this machine; "),
        (HAND, "cluster.num_nodes is 2 but neither cluster.hosts nor cluster.master_address is set; "),
        (
            [*TWO_NODES, "data.batch_size=6"],
            "data.batch_size is 6, but 2 ranks with a data.micro_batch_size of 2 take 4",
        ),
        (
            [*TWO_NODES, "resume=runs/x/checkpoints/step-1"],
            "resume is runs/x/checkpoints/step-1, but a job that is star",
        ),
        ([*TWO_NODES, "run.name='a b'"], "run.name is 'a b', which is not valid in a directive of sbatch; "),
        ([*PODS, "cluster.image=null"], "cluster.image is null; set it to the image built from the Dockerfile"),
        ([*PODS, "run.dir=runs"], "run.dir: runs is in no volume of the pods (cluster.volume_claims mounts /runs, "),
        ([*PODS, "data.dir=/data/../x"], "data.dir: /data/../x is in no volume of the pods"),
        ([*PODS, "run.name=A_b"], "run.name is 'A_b', but a Job's name has at most 52 lower-case letters"),
    ],
)
def test_a_run_that_cannot_be_submitted_is_refused_in_one_sentence(
    commands, packed: Path, capsys, overrides: list[str], expected: str
) -> None:
    where = [] if "cluster=kubernetes" in overrides else [f"data.dir={packed}"]
    assert refusal(capsys, *where, *overrides).startswith(expected)
    assert list(Path.cwd().iterdir()) == [], "nothing was written"


def test_pods_are_applied_unless_something_of_the_name_is_there(commands, capsys) -> None:
    commands.add("kubectl", '[[ $1 != get ]] || cat "$0.has" 2>/dev/null || true')
    assert main(PODS) == 0
    folder = Path.cwd() / "runs" / "first" / "submissions" / "001"
    get = "kubectl get job,service,configmap first --namespace default --ignore-not-found --output=name"
    assert commands.calls == [get, f"kubectl apply --filename {folder}/job.yaml"]
    assert not (folder / "code").exists(), "the image is the code"
    capsys.readouterr()
    (commands.folder / "kubectl.has").write_text("job.batch/first\nconfigmap/first\n")
    message = refusal(capsys, *PODS)
    assert message.startswith("run.name: namespace default already has job.batch/first, configmap/first; ")


def test_nodes_that_are_started_by_hand(commands, packed: Path, capsys) -> None:
    assert main([*HAND, f"data.dir={packed}", "cluster.master_address=10.0.0.1"]) == 0
    output = capsys.readouterr().out
    script = Path.cwd() / "runs" / "first" / "submissions" / "001" / "job.sh"
    assert f"on node 1: bash {script} 1\n" in output
    assert "job:" not in output


def test_hosts_are_started_by_ssh_all_or_none(commands, packed: Path, capsys) -> None:
    commands.add("ssh", "case $3 in a) echo 41;; *) echo 'ssh: no route to b' >&2; exit 255;; esac")
    message = refusal(capsys, *HAND, f"data.dir={packed}", "cluster.hosts=[a,b]")
    assert message.startswith("cluster.hosts: b could not be started: ssh failed (ssh: no route to b)")
    assert commands.calls[-1] == "ssh -o BatchMode=yes a kill 41"
    commands.add("ssh", "echo 42")
    assert main([*HAND, f"data.dir={packed}", "cluster.hosts=[a,b]"]) == 0
    assert "stop:      ssh b kill 42\n" in capsys.readouterr().out
    assert commands.calls[-1].startswith("ssh -o BatchMode=yes b nohup setsid bash ")


def test_no_secret_is_submitted(slurm, packed: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"WANDB_API_KEY": "0123456789hunter-wandb", "AWS_SECRET_ACCESS_KEY": "0123456789hunter-aws"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    signed = "run.checkpoint.copy_to='s3://me:hunter@bucket'"
    assert "holds an address with a password" in refusal(capsys, *TWO_NODES, f"data.dir={packed}", signed)
    replaced = [signed, "run.checkpoint.copy_to=null"]
    assert "holds an address with a password" in refusal(capsys, *TWO_NODES, f"data.dir={packed}", *replaced)
    assert not (Path.cwd() / "runs").exists()
    assert main([*TWO_NODES, f"data.dir={packed}", "tracking=wandb"]) == 0
    written = [path for path in (Path.cwd() / "runs").rglob("*") if path.is_file()]
    assert "train.yaml" in {path.name for path in written}
    assert not [path for path in written if any(value.encode() in path.read_bytes() for value in secrets.values())]
    assert not [path for path in (Path.cwd() / "runs").rglob("*") if path.stat().st_mode & 0o022]
