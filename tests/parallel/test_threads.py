import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mythos.parallel import threads
from mythos.parallel.threads import Threads, choose_threads, cpu_quota, take_threads


@pytest.mark.parametrize(
    ("most", "num_cpus", "quota", "load", "count", "is_named"),
    [
        (2, 2, None, 0.0, 2, False),
        (2, 2, None, 0.4, 2, False),
        (2, 2, None, 1.0, 1, True),
        (2, 2, None, 7.5, 1, True),
        (16, 16, None, 4.0, 12, True),
        (8, 16, None, 4.0, 8, False),
        (16, 16, 4.0, 0.0, 4, False),
        (16, 16, 4.0, 12.0, 4, False),
        (16, 16, 4.0, 14.0, 2, True),
        (16, 16, 0.5, 0.0, 1, False),
        (1, 1, None, 3.0, 1, False),
    ],
)
def test_threads_are_what_load_and_quota_leave(
    most: int, num_cpus: int, quota: float | None, load: float, count: int, is_named: bool
) -> None:
    chosen = choose_threads(most, num_cpus, quota, load, "cluster.num_threads")
    assert (chosen.num_threads, chosen.sentence is not None) == (count, is_named)


def test_the_sentence_names_numbers_and_key() -> None:
    assert choose_threads(2, 2, None, 1.3, "cluster.num_threads").sentence == (
        "threads: 1 of 2, because other processes keep 1.3 of 2 CPUs busy; cluster.num_threads sets another number."
    )
    assert choose_threads(4, 4, None, 3.0, "OMP_NUM_THREADS", before=3) == Threads(
        3,
        "threads: 3 as before, so that the run continues bitwise, but other processes keep 3.0 of 4 CPUs busy; "
        "OMP_NUM_THREADS=1 is faster.",
    )
    assert choose_threads(4, 4, None, 0.0, "OMP_NUM_THREADS", before=1) == Threads(1)


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2.0),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4.0),
        ("9:name=systemd:/\n1:cpu,cpuacct:/x\n0::/", {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000"}, 3.0),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_both_versions_of_cgroups_is_read(
    cgroup: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    periods = {name.replace("quota", "period"): "100000" for name in files if "quota" in name}
    for name, text in {**files, **periods}.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    assert cpu_quota(tmp_path) == quota


def test_a_machine_without_proc_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_threads_are_taken_only_where_no_variable_sets_them(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threads, "load", lambda: 5.0)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    take_threads()
    assert (taken, capsys.readouterr().err) == ([], "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    take_threads("cluster.num_threads")
    assert taken == [1]
    assert capsys.readouterr().err == (
        "threads: 1 of 2, because other processes keep 2.0 of 2 CPUs busy; cluster.num_threads sets another number.\n"
    )


def test_the_load_is_that_of_other_processes() -> None:
    assert 0 <= threads.load() <= os.getloadavg()[0] + 1


def test_the_command_lets_idle_threads_sleep_unless_the_user_says_otherwise() -> None:
    script = (
        "import os, sys; from mythos.cli.main import main; main(['config', 'run.seed']);"
        "assert 'torch' not in sys.modules;"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}

    def printed(**more: str) -> str:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment | more)
        return done.stdout.splitlines()[-1]

    assert printed() == "passive 0"
    assert printed(OMP_WAIT_POLICY="active", KMP_BLOCKTIME="200") == "active 200"
