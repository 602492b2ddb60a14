"""Every template, rendered: its contents, and that its interpreters accept it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import kubernetes, slurm, torchrun
from launch.render import FOLDER, render
from launch.submission import Submission
from mythos.config.exit_status import DIVERGED, LOST_PEER, PREEMPTED, STALLED
from mythos.config.load import load

RANKS = ["model=debug", "optim=adamw", "parallel=zero1", "data.micro_batch_size=2", "data.batch_size=16"]
SLURM = """cluster=slurm cluster.num_nodes=2 cluster.num_devices=4 cluster.partition=long cluster.account=a
cluster.time_limit=1-00:00:00 cluster.memory=512G cluster.cpus_per_task=8 cluster.signal_seconds=600
cluster.network_interface=ib0 cluster.extra_directives=['--exclusive']""".split()
PODS = """cluster=kubernetes cluster.num_nodes=2 cluster.num_devices=4 run.name=first run.dir=/runs
data.dir=/data/packed cluster.image=registry/mythos:1 cluster.secret_name=tokens
cluster.num_cpus=32 cluster.memory=256Gi""".split()
CLAIMS = ["cluster.volume_claims={runs: /runs, data: /data}", "cluster.node_selector={gpu: h200}"]
TORCHRUN = "cluster=torchrun cluster.num_nodes=2 cluster.num_devices=4 cluster.hosts=[me@a,b]".split()


def rendered(scheduler: Any, tmp_path: Path, *overrides: str) -> str:
    folder = tmp_path / "runs" / "it's" / "submissions" / "001"
    submission = Submission(overrides=list(overrides), run=folder.parents[1], folder=folder, working_directory=tmp_path)
    (text,) = scheduler.files(load([*RANKS, *overrides]), submission).values()
    return text


@pytest.fixture
def batch(tmp_path: Path) -> str:
    return rendered(slurm, tmp_path, *SLURM)


@pytest.fixture
def manifests(tmp_path: Path) -> list[dict]:
    return list(yaml.safe_load_all(rendered(kubernetes, tmp_path, *PODS, *CLAIMS)))


def test_every_template_is_tested() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"slurm.sh", "torchrun.sh", "node.sh", "kubernetes.yaml"}


def test_a_missing_or_unknown_key_is_an_error() -> None:
    with pytest.raises(AssertionError, match="'num_nodes'"):
        render("torchrun.sh", submission="/x")


@pytest.mark.parametrize("network", [[], ["cluster.network_interface=eth1"]])
def test_scripts_are_valid(tmp_path: Path, network: list[str]) -> None:
    pods = yaml.safe_load_all(rendered(kubernetes, tmp_path, *PODS, *CLAIMS, *network))
    scripts = {
        "slurm": rendered(slurm, tmp_path, "cluster=slurm", *network),
        "torchrun": rendered(torchrun, tmp_path, *TORCHRUN, *network),
        "node": next(pods)["data"]["node.sh"],
    }
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, text in scripts.items():
        assert "{{" not in text
        assert ("SOCKET_IFNAME=eth1" in text) == bool(network)
        path = tmp_path / f"{name}.sh"
        path.write_text(text)
        checks = [["bash", "-n", path], *([[shellcheck, path]] if shellcheck else [])]
        for command in checks:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_directives_match_the_configuration(batch: str) -> None:
    directives = set(re.findall(r"^#SBATCH (\S+)$", batch, re.MULTILINE))
    assert directives >= {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8", "--mem=512G", "--requeue"),
        *("--partition=long", "--account=a", "--time=1-00:00:00", "--signal=B:USR1@600", "--exclusive"),
    }
    assert not [directive for directive in directives if directive.startswith(("--qos", "--constraint"))]
    first_command = re.search(r"^[^#\n]", batch, re.MULTILINE)
    assert first_command is not None
    assert "#SBATCH" not in batch[first_command.start() :], "sbatch stops reading at the first command"


def run_batch(
    tmp_path: Path, srun: str, restart: int = 0, latest: str | None = None, scontrol: str = ""
) -> tuple[int, list[str]]:
    """Run the batch script with a stand-in for srun; returns its status and the calls of scontrol and sleep."""
    tools, run = tmp_path / "tools", tmp_path / "runs" / "it's"
    (run / "submissions" / "001").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").mkdir(exist_ok=True)
    if latest is not None:
        (run / "checkpoints" / "latest").write_text(latest)
    tools.mkdir(exist_ok=True)
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    stand_ins = {
        "srun": srun,
        "scontrol": f'echo "scontrol $*" >> {calls}; {scontrol}',
        "sleep": f'echo "sleep $*" >> {calls}',
    }
    for name, script in stand_ins.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / name).chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(rendered(slurm, tmp_path, *SLURM))
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[0-1]",
        "SLURM_NTASKS": "8",
        "SLURM_RESTART_COUNT": str(restart),
    }
    environment = os.environ | job | {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    called = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, [call for call in called if not call.startswith("scontrol show")]


@pytest.mark.parametrize("status", [0, 1, 2, DIVERGED, LOST_PEER, PREEMPTED, STALLED, 137])
def test_a_job_is_requeued_after_restartable_statuses(tmp_path: Path, status: int) -> None:
    again = status in (LOST_PEER, PREEMPTED, STALLED, 137)
    waits = ["sleep 10"] if again and status != PREEMPTED else []
    expected = [*waits, "scontrol requeue 7"] if again else []
    assert run_batch(tmp_path, f"exit {status}") == (status, expected)


def test_restarts_are_bounded_and_slower_until_there_is_a_new_checkpoint(tmp_path: Path) -> None:
    def lost(restart: int, latest: str | None = None) -> list[str]:
        return run_batch(tmp_path, f"exit {LOST_PEER}", restart, latest)[1]

    again = "scontrol requeue 7"
    assert [lost(restart) for restart in range(6)] == [[f"sleep {10 * 2**n}", again] for n in range(5)] + [[]]
    assert lost(6, "step-00000010") == ["sleep 10", again], "there was progress, so the count restarts"
    assert lost(7) == ["sleep 20", again]


def test_a_signal_to_the_script_reaches_the_ranks_and_their_status_is_returned(tmp_path: Path) -> None:
    script = f"trap 'exit {PREEMPTED}' USR1; kill -USR1 $PPID; "
    script += "while :; do read -t 0.1 <> <(:); done"
    assert run_batch(tmp_path, script) == (PREEMPTED, ["scontrol requeue 7"])


def test_a_signal_before_the_ranks_are_started_requeues_the_job(tmp_path: Path) -> None:
    """Sent while the script looks up its nodes, by a child of its child."""
    send = "read -r _ _ _ script _ </proc/$PPID/stat; [[ $1 != show ]] || kill -{} $script"
    for name in ("USR1", "TERM"):
        job = run_batch(tmp_path, f"echo srun >>{tmp_path}/started; exit 0", scontrol=send.format(name))
        assert job == (PREEMPTED, ["scontrol requeue 7"])
    assert not (tmp_path / "started").exists()


def test_a_signal_that_kills_srun_before_it_can_forward_it_counts_as_asked_to_stop(tmp_path: Path) -> None:
    script = "kill -USR1 $PPID; while :; do read -t 0.1 <> <(:); done"
    assert run_batch(tmp_path, script) == (PREEMPTED, ["scontrol requeue 7"])


def test_torchrun_meets_at_a_fixed_address(tmp_path: Path) -> None:
    text = rendered(torchrun, tmp_path, *TORCHRUN)
    (tmp_path / "python").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(text.replace(f"exec {sys.executable}", f"exec {tmp_path}/python"))
    done = subprocess.run(["bash", script, "1"], capture_output=True, text=True, check=True)
    meeting = "-m torch.distributed.run --nnodes 2 --node-rank 1 --nproc-per-node 4 --master-addr a --master-port 29400"
    submission = str(tmp_path / "runs" / "it's" / "submissions" / "001")
    assert done.stdout.splitlines() == [*meeting.split(), *"-m mythos.cli.main train --config-dir".split(), submission]
    assert subprocess.run(["bash", script], capture_output=True, check=False).returncode != 0


def test_manifests_are_valid(manifests: list[dict]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    assert [manifest["kind"] for manifest in manifests] == ["ConfigMap", "Service", "Job"]
    for manifest in manifests:
        validator.validate(manifest, validator.latest_version(), strict=True)


def test_pods_read_the_frozen_configuration(manifests: list[dict], tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(manifests[0]["data"]["train.yaml"])
    assert load([], tmp_path) == load([*RANKS, *PODS, *CLAIMS])
    assert json.loads(manifests[0]["data"]["submission.json"])["overrides"] == [*PODS, *CLAIMS]


def test_pods_find_the_first_one_and_all_restart_together(manifests: list[dict]) -> None:
    config_map, service, job = manifests
    spec = job["spec"]
    pod = spec["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"] == "first"
    assert "MASTER_ADDR=first-0.first MASTER_PORT=29400\n" in config_map["data"]["node.sh"]
    assert pod["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"
    rules = {
        status: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for status in rule.get("onExitCodes", {}).get("values", ["disruption"])
    }
    assert rules == {
        2: "FailJob",
        DIVERGED: "FailJob",
        LOST_PEER: "Ignore",
        PREEMPTED: "Ignore",
        "disruption": "Ignore",
    }
    assert spec["backoffLimit"] == 20 * 2, "every pod may fail by a stall of all"


def test_pods_get_what_they_need_and_no_more(manifests: list[dict]) -> None:
    pod = manifests[2]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "4", "cpu": "32", "memory": "256Gi"}
    assert container["envFrom"] == [{"secretRef": {"name": "tokens"}}]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/runs", "/data", "/dev/shm", "/submission"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "OMP_NUM_THREADS=8\n" in manifests[0]["data"]["node.sh"], "32 CPUs for 4 ranks"


def test_a_pod_starts_its_node(manifests: list[dict], tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/bash\necho "$NODE_RANK $MASTER_ADDR $MASTER_PORT $*"\nexit 77\n')
    (tmp_path / "python").chmod(0o755)
    submission = tmp_path / "submission"
    submission.mkdir()
    (submission / "train.yaml").write_text("{}")
    script = manifests[0]["data"]["node.sh"].replace("copy=/runs/", f"copy={tmp_path}/runs/")
    copy = tmp_path / "runs" / "it's" / "submissions" / "001"
    script = re.sub(r"copy=.*", f'copy="{copy}"', script)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SUBMISSION": str(submission)}
    for index, copied in ((1, False), (0, True)):
        environment["JOB_COMPLETION_INDEX"] = str(index)
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 77, done.stderr
        assert done.stdout == f"{index} first-0.first 29400 -m mythos.cli.main train --config-dir {submission}\n"
        assert (copy / "train.yaml").exists() == copied


def test_the_dockerfile_is_valid() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    path = Path(__file__).parents[2] / "Dockerfile"
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_a_user_without_secrets() -> None:
    lines = (Path(__file__).parents[2] / "Dockerfile").read_text().splitlines()
    instructions = [line for line in lines if line and not line.startswith(("#", " "))]
    assert re.fullmatch(r"FROM \S+:\d+\.\d+\.\d+-\S+", next(line for line in instructions if line.startswith("FROM")))
    assert 'ENTRYPOINT ["mythos"]' in instructions
    assert "USER 1000:1000" in instructions
    assert not [
        line for line in instructions if line.startswith(("ENV", "ARG")) and re.search("TOKEN|KEY|SECRET", line)
    ]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_cache_that_another_user_may_write_to_is_refused(tmp_path: Path, is_link: bool) -> None:
    """The cache is replaced by a file, or by a link, whose target may change a moment later."""
    cache = tmp_path / "cache"
    if is_link:
        (tmp_path / "own").mkdir()
        cache.symlink_to(tmp_path / "own")
    else:
        cache.touch()
    text = rendered(torchrun, tmp_path, *TORCHRUN).replace("cache=/tmp/mythos-$UID", f"cache={cache}")
    done = subprocess.run(["bash", "-c", text, "job", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"{cache} is not a folder of this user, and its content is run as code; remove it",
    )


def test_every_task_of_a_batch_job_checks_the_cache_of_its_node(tmp_path: Path, batch: str) -> None:
    (task,) = re.findall(r"bash -c \\\n\s+'(.*?)' rank ", batch, re.DOTALL)
    numbers = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}

    def run(cache: Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | numbers | {"MYTHOS_CACHE": str(cache)}
        command = ["bash", "-c", task, "rank", "printenv", "RANK", "LOCAL_RANK", "GROUP_RANK"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run(tmp_path / "new").stdout.split() == ["3", "1", "1"]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "new")
    done = run(tmp_path / "link")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"{tmp_path / 'link'} is not a folder of this user; remove it\n",
    )
