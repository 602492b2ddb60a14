"""Commands after each job and at the end of a sweep: what runs, what is repeated, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
from helpers import recorded, wait_until

from mythos.cli.main import main
from mythos.config import records
from mythos.config.base import ConfigError
from mythos.config.expand import expand
from mythos.config.load import default_config_dir
from mythos.report.jobs import JobRecord, read_job, write_record
from mythos.sweep.drive import ListedJobs, was_lost
from mythos.sweep.plan import make
from mythos.sweep.process import JobProcess, Launch

AFTER = ("evaluate {run} depth-sweep", "export {run} --to '{run}/an export'")


def finish(launch: Launch, environment: dict[str, str] | None = None) -> str:
    """Run a job to its end and return its state."""
    job = JobProcess(launch, environment)
    wait_until(job.poll)
    return read_job(launch.directory).state


def test_commands_follow_a_training_with_its_devices_and_log(child, tmp_path: Path) -> None:
    run = tmp_path / "a job"
    launch = Launch(run, (), ("train", "x=1"), 0, AFTER)
    assert finish(launch, {"CUDA_VISIBLE_DEVICES": "5"}) == "finished"
    assert child.calls() == [
        ["5", "train", "x=1"],
        ["5", "evaluate", str(run), "depth-sweep"],
        ["5", "export", str(run), "--to", f"{run}/an export", "--replace"],
    ]
    assert (run / "log.txt").read_text().splitlines() == [
        "child runs train",
        f"$ mythos evaluate '{run}' depth-sweep",
        "child runs evaluate",
        f"$ mythos export '{run}' --to '{run}/an export' --replace",
        "child runs export",
    ]


def test_nothing_follows_a_training_that_failed(child, tmp_path: Path) -> None:
    child.set_status("train", 76)
    assert finish(Launch(tmp_path / "job", (), ("train",), 0, AFTER)) == "diverged"
    assert [call[1] for call in child.calls()] == ["train"]


def test_only_what_failed_and_what_follows_it_is_repeated(child, tmp_path: Path) -> None:
    after = (*AFTER, "report {run}")
    launch = Launch(tmp_path / "job", (), ("train",), 0, after)
    child.set_status("export", 3)
    assert finish(launch) == "finished, but: export {run} --to '{run}/an export' failed (3)"
    assert [call[1] for call in child.calls()] == ["train", "evaluate", "export"]
    child.set_status("export", 0)
    seconds = read_job(launch.directory).record.seconds
    assert finish(launch) == "finished"
    assert [call[1] for call in child.calls()] == ["export", "report"]
    record = read_job(launch.directory).record
    assert (record.num_starts, record.seconds) == (1, seconds)
    assert record.after == dict.fromkeys(after, 0)


def test_a_command_that_is_stopped_has_not_failed_and_runs_again(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, time; from pathlib import Path\n"
    code += "if sys.argv[1] == 'evaluate': Path(__file__).with_name('up').touch(); time.sleep(3600)\n"
    launch = scripted(code)
    monkeypatch.setattr("mythos.sweep.process._COMMAND", (sys.executable, *launch.arguments))
    launch = launch._replace(arguments=("train",), after=("evaluate {run}",))
    job = JobProcess(launch)
    wait_until(lambda: (launch.directory / "up").exists() or job.poll())
    assert read_job(launch.directory).state == "running"
    job.stop("by the sweep")
    wait_until(job.poll)
    assert read_job(launch.directory).state == "stopped"
    assert was_lost(job.record)
    assert job.record.after == {"evaluate {run}": None}
    (launch.directory / "child.py").write_text("import sys; sys.exit(sys.argv[1] == 'train')")
    assert finish(launch) == "finished"


def test_a_job_of_slurm_that_is_complete_is_not_queued_again(child, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from mythos.sweep.slurm import Supervised

    supervised = Supervised(Launch(tmp_path / "job", (), ("train",), 0, AFTER))
    assert supervised() == 0
    assert supervised.checkpoint() is None
    child.set_status("export", 3)
    failed = Supervised(Launch(tmp_path / "failed", (), ("train",), 0, AFTER))
    failed()
    assert failed.checkpoint() is not None


def test_a_lost_job_is_distinguished_from_one_whose_command_failed() -> None:
    done, open_, failed = (
        JobRecord(name="a", status=0, after={"x": 0}),
        {"x": 0, "y": None},
        {"x": 0, "y": 4, "z": None},
    )
    assert not was_lost(done)
    assert was_lost(JobRecord(name="a", status=0, after=open_))
    assert not was_lost(JobRecord(name="a", status=0, after=failed))
    assert done.renewed(("y", "x")) == JobRecord(name="a", status=0, after={"x": 0, "y": None})
    assert JobRecord(name="a", status=0, after=failed).renewed(("x", "y")).after == open_
    assert JobRecord(name="a", status=76, stopped="early").renewed(("x",)) == JobRecord(name="a", after={"x": None})


def test_a_job_that_was_submitted_before_a_command_was_added_is_started_again(small: list[str]) -> None:
    plan = make([*small, "run.seed=0,1", 'sweep.after=["evaluate {run}", "report {run}"]'])
    listed = ListedJobs(plan, {job.name for job in plan.jobs})
    assert listed.next() is None
    assert listed.ended(JobRecord(name="run.seed-0", status=0, after={"evaluate {run}": 0}))
    assert not listed.ended(JobRecord(name="run.seed-1", status=0, after={"evaluate {run}": 0, "report {run}": 0}))
    assert listed.next() == plan.jobs[0]


def test_a_sweep_is_given_commands_later_and_runs_only_those(
    small: list[str], child, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep, command = tmp_path / "mine", ["sweep", *small, "run.seed=0,1"]
    runs = [str(sweep / f"run.seed-{seed}") for seed in (0, 1)]
    compare, page = "evaluate compare {runs} --json {sweep}/c.json", "report {sweep}"

    def kinds(*options: str, status: int = 0) -> list[str]:
        assert main([*command, *options]) == status
        return [call[1] for call in child.calls()]

    assert kinds() == ["train", "train"]
    assert kinds('sweep.after=["sample {run}"]', f'sweep.at_end=["{compare}"]') == ["sample", "sample", "evaluate"]
    assert "child runs evaluate" in capfd.readouterr().out
    assert kinds('sweep.after=["sample {run}"]', f'sweep.at_end=["{compare}"]') == []
    assert main([*command, 'sweep.after=["sample {run}"]', f'sweep.at_end=["{compare}","{page}"]']) == 0
    assert child.calls() == [["", "report", str(sweep)]]

    # When a job changes, the commands at the end are run again, with the jobs that have finished.
    child.set_status("export", 2)
    export, ends = 'sweep.after=["export {run} --to {run}/e"]', f'sweep.at_end=["{compare}"]'
    assert kinds(export, ends, status=1) == ["export", "export"]
    output = capfd.readouterr()
    assert "run.seed-0: finished, but: export {run} --to {run}/e failed (2), see log.txt in its folder" in output.err
    assert "evaluate compare {runs} --json {sweep}/c.json: skipped, because no job has finished" in output.err
    assert "finished, but: export {run} --to {run}/e failed (2)  " in output.out
    child.set_status("export", 0)
    assert main([*command, export, ends]) == 0
    assert [call[1:] for call in child.calls()] == [
        *(["export", run, "--to", f"{run}/e", "--replace"] for run in runs),
        ["evaluate", "compare", *runs, "--json", f"{sweep}/c.json"],
    ]

    child.set_status("report", 4)
    assert kinds(f'sweep.at_end=["{compare}","{page}"]', status=1) == ["report"]
    assert "report {sweep}: failed (4)" in capfd.readouterr().err
    child.set_status("report", 0)
    assert kinds(f'sweep.at_end=["{compare}","{page}"]') == ["report"]


def test_a_failed_command_that_is_taken_out_leaves_a_finished_job(small: list[str], child, tmp_path: Path) -> None:
    command = ["sweep", *small, "run.seed=0,1"]
    child.set_status("sample", 1)
    assert main([*command, 'sweep.after=["report {run}", "sample {run}"]']) == 1
    assert len(child.calls()) == 6
    assert main([*command, 'sweep.after=["report {run}"]']) == 0
    assert child.calls() == []
    rows = json.loads((tmp_path / "mine" / "table.json").read_text())
    assert [(row["state"], row["num_starts"]) for row in rows] == [("finished", 1)] * 2


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("after=['train {run}']", "sweep.after: 'train {run}' is not understood; begin with one of evaluate, export, "),
        ("after=['']", "sweep.after: '' is not understood"),
        (
            "after=['evaluate {runs}']",
            "sweep.after: 'evaluate {runs}' holds {runs}, but only {run} can be used here.",
        ),
        ("at_end=['report {run}']", "holds {run}, but only {runs} and {sweep} can be used here."),
        ("at_end=['report {runs}/x']", "has {runs} inside a word"),
        ('after=["sample {run} --prompt \'a"]', "is not a command line (No closing quotation)"),
    ],
)
def test_commands_are_checked_before_a_job_starts(option: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand([f"sweep.{option}"], default_config_dir())
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("sweep.a")
    assert "\n" not in str(caught.value)


def test_an_option_that_is_not_known_is_refused_before_a_job_starts(
    small: list[str], child, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*small, "run.seed=0,1", "sweep.after=['sample {run} --num-tokenz 4']"]
    for start in (["sweep"], ["train", "-m"]):
        assert main([*start, *command]) == 2
        assert capsys.readouterr().err == (
            "mythos: sweep.after: 'sample {run} --num-tokenz 4' would be refused (unrecognized arguments: "
            "--num-tokenz 4); correct it.\n"
        )
    assert child.calls() == []
    assert not (tmp_path / "mine").exists()


def test_a_search_takes_commands_at_its_end_only() -> None:
    with pytest.raises(ConfigError, match=r"sweep.search is given but after holds 1 commands"):
        expand(["sweep=search", "sweep.after=['report {run}']"], default_config_dir())
    assert expand(["sweep=search", "sweep.at_end=['report {sweep}']"], default_config_dir()).config.at_end


def test_a_job_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    write_record(tmp_path, JobRecord(name="a", status=0))
    raw = json.loads((tmp_path / "job.json").read_text())
    del raw["after"]
    (tmp_path / "job.json").write_text(json.dumps(raw))
    assert read_job(tmp_path).state == "finished"


@pytest.mark.slow
def test_a_whole_experiment_runs_from_one_command(small: list[str], tmp_path: Path) -> None:
    after = (
        'sweep.after=["evaluate {run} --num-loops 1 2 --json {run}/held_out.json", "export {run} --to {run}/export"]'
    )
    at_end = 'sweep.at_end=["evaluate compare {runs} --json {sweep}/compare.json"]'
    assert main(["sweep", *small, "optim.lr=1e-3,1e-2", after, at_end]) == 0
    sweep, names = tmp_path / "mine", ["optim.lr-0.001", "optim.lr-0.01"]
    for name in names:
        (result,) = json.loads((sweep / name / "held_out.json").read_text()).values()
        assert result["nats_per_token"].keys() == {"1", "2"}
        assert len(recorded(sweep / name, records.validation_loss(2))) == 2
        assert (sweep / name / "export" / "model.safetensors").is_file()
    assert (sweep / "compare.json").is_file()
