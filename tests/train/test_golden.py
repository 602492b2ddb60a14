"""Twenty steps of every main feature compared with committed losses, which a refactoring must not change.

``pytest --update-golden tests/train/test_golden.py`` rewrites them, for a commit that states why they changed.
"""

import itertools
import json
from pathlib import Path

import pytest
from helpers import recorded

from mythos.config import records
from mythos.train.build import train
from mythos.train.run_directory import prepare

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Relative. One machine repeats a run bitwise; another one sums in another order, which 20 steps amplify."""
LARGE_VALUES = (
    "run.num_steps=20",
    "run.checkpoint.every=20",
    "run.validation.every=20",
    "model.output_scale=1",
    "model.embedding_std=0.5",
    "balance=sign",
)
"""Large initial values, so that every part affects the loss from the first step on."""
FEATURES = {
    "moe-sigmoid": (),
    "moe-softmax-naive": ("model.core_ffn.score=softmax", "model.core_ffn.dispatch=naive"),
    "quantile-balance": ("balance=quantile", "model.core_ffn.num_active=1", "objective.router_z_loss=1e-2"),
    "balance-loss": ("objective.balance_loss=0.1", "balance=none"),
    "dense": ("model=debug-dense",),
    "mla": ("model=debug-mla",),
    "zero-order-hold": ("model.injection.discretization=zoh",),
    "parallel-update-rule": ("model.injection.update_rule=parallel",),
    "linear-injection": ("model.injection.kind=linear",),
    "additive-injection": ("model.injection.kind=additive", "model.initial_state=zero"),
    "sandwich-untied-capped": ("model.norm_position=sandwich", "model.head={tied: false, soft_cap: 20.0}"),
    "state-from-embedding": ("model.initial_state=embedding", "model.prelude_norm=false"),
    "act": ("halting=act", "depth.num_grad_loops=4", "halting.weight=0.1"),
    "ponder": ("halting=ponder", "depth.num_grad_loops=4", "halting.num_exits=2"),
    "every-penalty": (
        *("objective.supervise_loops=0.3", "objective.num_supervised_loops=2", "objective.z_loss=1e-3"),
        *("objective.consistency=0.2", "objective.jacobian=0.2", "objective.router_z_loss=1e-2"),
    ),
    "scaled-residuals-recomputed": ("model.residual_scale=inverse_sqrt", "parallel.remat=loop"),
    "adamw-cosine": ("optim=adamw", "schedule=cosine", "schedule.num_warmup_steps=4"),
    "per-sequence": ("depth.per_sequence=true",),
    "phantom-gradient": ("depth.damping=0.5", "depth.num_grad_loops=1"),
    "accumulated-without-masks": ("data.micro_batch_size=1", "data.mask_documents=false", "objective.z_loss=1e-4"),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_losses_are_the_committed_ones(configure, request: pytest.FixtureRequest, feature: str) -> None:
    config = configure(*LARGE_VALUES, *FEATURES[feature])
    train(config, prepare(config))
    losses = list(recorded(Path(config.run.dir) / "test", records.TRAIN_LOSS).values())
    path = GOLDEN / f"{feature}.json"
    if request.config.getoption("--update-golden"):
        path.write_text(json.dumps([round(loss, 6) for loss in losses]) + "\n")
    assert losses == pytest.approx(json.loads(path.read_text()), rel=TOLERANCE)
    assert losses[-1] < losses[0] - 0.3


def test_no_two_features_have_the_same_curve() -> None:
    curves = [json.loads((GOLDEN / f"{feature}.json").read_text()) for feature in FEATURES]
    for one, other in itertools.combinations(curves, 2):
        distance = max(abs(ours - theirs) / theirs for ours, theirs in zip(one, other, strict=True))
        assert distance > 10 * TOLERANCE
