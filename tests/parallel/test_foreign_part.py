"""A loop part of another package trains in every layout, resumes, decodes and is exported."""

import os
import sys
from pathlib import Path

import pytest
import torch
from foreign_part import TIDE, write_package
from helpers import recorded, relative_error, saved

from mythos.eval.restore import restore
from mythos.export.folder import export
from parallel.ranks import Result, run_cases

pytestmark = pytest.mark.slow
PARTS = [f"model.loop.parts=[{{kind: film}}, {TIDE}]", "run.num_steps=5", "run.checkpoint.every=3"]
PARTS += ["telemetry.trace_every=5", "model.output_scale=0.25"]
LAYOUTS = {"zero2-ep2": ["parallel=zero2", "parallel.ep_size=2"], "zero3": ["parallel=zero3"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    """The folder of the installed package, on the path of this process and of those that it starts."""
    root = write_package(tmp_path_factory.mktemp("site") / "packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(root)
        yield root
    for name in [name for name in sys.modules if name.startswith("tide_parts")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def alone(site: Path, tmp_path_factory: pytest.TempPathFactory, packed: Path) -> tuple[Path, list[Result]]:
    """Five steps of one process, and the last two of them resumed from step three."""
    folder = tmp_path_factory.mktemp("alone") / "runs"
    case = ["data.micro_batch_size=8", *PARTS]
    return folder, run_cases(folder, 1, packed, [case, [*case, checkpoint(folder, 0)]])


@pytest.fixture(scope="module")
def together(site: Path, tmp_path_factory: pytest.TempPathFactory, packed: Path) -> tuple[Path, list[Result]]:
    """By layout: five steps, then the last two of them resumed from step three."""
    folder = tmp_path_factory.mktemp("together") / "runs"
    cases = [[*layout, *PARTS] for layout in LAYOUTS.values()]
    resumed = [[*case, checkpoint(folder, index)] for index, case in enumerate(cases)]
    return folder, run_cases(folder, 2, packed, [*cases, *resumed])


def checkpoint(folder: Path, index: int) -> str:
    return f"resume={folder / f'case-{index}' / 'checkpoints' / 'step-00000003'}"


@pytest.mark.parametrize("index", range(len(LAYOUTS)), ids=list(LAYOUTS))
def test_training_does_not_depend_on_the_layout(alone, together, index: int) -> None:
    found, expected = together[1][index], alone[1][0]
    assert len(found.losses) == 5
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        assert relative_error(found.weights[name], weight) < 1e-4, name
    runs = (together[0] / f"case-{index}", alone[0] / "case-0")
    ours, theirs = (recorded(run, "loop/tide/write") for run in runs)
    assert ours.keys() == {5}
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(alone, together) -> None:
    num_layouts = len(LAYOUTS)
    pairs = [(alone, 0, 1), *((together, index, index + num_layouts) for index in range(num_layouts))]
    for (folder, results), whole, resumed in pairs:
        assert results[resumed].losses == results[whole].losses[3:]
        ours, theirs = saved(folder / f"case-{whole}", 5), saved(folder / f"case-{resumed}", 5)
        assert "core.parts.1.write.weight|exp_avg" in ours
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_engine_knows_the_inputs_of_every_module(together) -> None:
    assert "unknown inputs" not in (together[0] / "output.txt").read_text()


def test_the_trained_model_decodes_token_by_token_and_is_exported(alone, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run = alone[0] / "case-0"
    _, model, manifest = restore(run, torch.device("cpu"))
    assert manifest.packages == {"tide": "tide_parts 1.2"}
    tokens_BS = torch.randint(512, (3, 12), generator=torch.Generator().manual_seed(1))
    together_BSV = model.decode(tokens_BS, model.new_cache(5, 12))
    cache = model.new_cache(5, 12)
    one_by_one = torch.cat([model.decode(token_B1, cache) for token_B1 in tokens_BS.split(1, dim=1)], 1)
    assert relative_error(one_by_one, together_BSV) < 1e-5

    export(run, tmp_path / "out", None)
    assert "from tide_parts.part import Tide\n" in (tmp_path / "out" / "modeling_mythos.py").read_text()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    with torch.no_grad():
        assert relative_error(loaded(tokens_BS, num_loops=5).logits, together_BSV) < 1e-5
