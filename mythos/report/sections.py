"""The sections of the page in order: their plots and explanations."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from mythos.report.compare import Runs
from mythos.report.figures import compare, evaluation, experts, gates, halting, loss, state, sweep, training
from mythos.report.read import Run
from mythos.report.verdicts import evaluation as of_evaluation
from mythos.report.verdicts import gates as of_gates
from mythos.report.verdicts import loss as of_loss
from mythos.report.verdicts import several
from mythos.report.verdicts import state as of_state
from mythos.report.verdicts import training as of_training
from mythos.report.verdicts.check import Verdict
from mythos.report.verdicts.experts import routing
from mythos.report.verdicts.several import worst_of

T = TypeVar("T", Run, Runs)


class Plot(NamedTuple, Generic[T]):
    """A figure and its caption."""

    title: str
    draw: Callable[[T], Any]
    size: str = ""
    """``short``, ``tall`` or ``wide`` (which scrolls sideways on a phone); empty for the default size."""


class Section(NamedTuple, Generic[T]):
    """A group of plots; left out when all of them are absent."""

    title: str
    note: str
    plots: tuple[Plot[T], ...]
    verdict: Callable[[T], Verdict | None]
    """Returns whether what the section shows is healthy; None where its metrics are missing."""


ONE_RUN: tuple[Section[Run], ...] = (
    Section(
        "Loss",
        "The number of loops is drawn for each training step; validation uses the same text every time.",
        (
            Plot("Training and validation", loss.loss),
            Plot("Penalties", loss.penalties),
            Plot("Alarms, skipped steps, rollbacks", loss.timeline, "short"),
        ),
        of_loss.loss,
    ),
    Section(
        "Loss by number of loops",
        "Held-out loss after T loops of the core, all T from one forward pass. Coinciding lines mean that the model "
        "ignores its loops. The dotted line marks the mean depth of training; the curve, where there is one, is the "
        "fit L∞ + Z exp(−z T / mean).",
        (
            Plot("Over training", loss.loss_by_num_loops),
            Plot("Last validation", loss.loss_over_num_loops),
            Plot("On a few training sequences", loss.slice_loss_by_num_loops),
            Plot("Gain of the largest T over one loop, on them", loss.loss_gain, "short"),
            Plot("Number of loops drawn", loss.loops_drawn),
        ),
        of_loss.by_num_loops,
    ),
    Section(
        "Evaluation: depth sweep",
        "Held-out tokens, all T from one forward pass. The curve is the fit L∞ + Z exp(−z T / mean) over the requested "
        "loop counts; the dotted line marks the mean depth of training. An exit rule saves loops where its points lie "
        "below the line of T loops for all tokens. Where there is a line for the experts of the first loop, its "
        "distance to the line of recomputed routing is the gain from routing tokens again in every loop.",
        (
            Plot("Loss after T loops", evaluation.swept_loss),
            Plot("Accuracy after T loops", evaluation.swept_accuracy),
            Plot("Convergence of the state", evaluation.convergence),
            Plot("Angle between the states before and after a loop", evaluation.angles),
            Plot("Exit rules: loss", evaluation.exit_rules),
            Plot("Exit rules: accuracy", evaluation.exit_accuracies),
            Plot("Exits that change when the input is perturbed", evaluation.exit_sensitivity),
        ),
        of_evaluation.depth_sweep,
    ),
    Section(
        "Evaluation: tasks",
        "Share of problems solved against the number of loops; the dotted line marks the mean depth of training, and "
        "crosses are results under an exit rule.",
        (
            Plot("Solved, by number of loops", evaluation.solved),
            Plot("Solved, by difficulty and number of loops", evaluation.solved_by_difficulty),
            Plot("Accuracy by task", evaluation.task_accuracies),
        ),
        of_evaluation.tasks,
    ),
    Section(
        "The recurrent state",
        "Root mean square of the state after each loop. A norm that levels off over the loops has converged to a "
        "fixed point; a norm that keeps growing will diverge. Gaps are loops that a step did not run.",
        (
            Plot("Norm by loop, over training", state.state_norms),
            Plot("Norm against the loop, by quarter of the run", state.state_norm_profile),
            Plot("Relative change |h′ − h| / |h′|", state.relative_changes),
            Plot("Relative change, by quarter of the run", state.relative_change_profile),
        ),
        of_state.recurrent,
    ),
    Section(
        "Gates of the loop parts",
        "The last measurement. A gate that keeps the old state and is near 1 in every loop ignores what the loops "
        "compute; one near 0 is not used.",
        (
            Plot("Mean gate", gates.gate_means),
            Plot("Saturated share: below 0.02 and above 0.98", gates.saturated_gates),
        ),
        of_gates.gates,
    ),
    Section(
        "Collapse and divergence",
        "If token correlation is near 1, all tokens of a sequence have the same state. The cosine compares "
        "the states before and after a loop: 1 keeps the direction, 0 replaces the state, −1 reverses it. A curvature "
        "ratio of 0 is a straight path; loops that shrink their updates by a factor r along one line have (1 − r) / r, "
        "and loops whose updates alternate have (1 + r) / r.",
        (
            Plot("Token correlation", state.token_correlations),
            Plot("Token correlation, by quarter of the run", state.token_correlation_profile),
            Plot("Cosine to the previous state, from loop 1 on", state.cosines),
            Plot("Curvature ratio", state.curvature_ratios),
            Plot("Decay, gain and growth of one loop", state.recurrence),
            Plot("Gates and other figures of the loop parts", state.part_figures),
            Plot("Relative update of each core block, last measurement", state.update_norms),
        ),
        of_state.collapse,
    ),
    Section(
        "Exits",
        "Probability of exiting after each loop, averaged over tokens. If all of it is on the last loop, the halting "
        "gate is not used.",
        (
            Plot("By loop, over training", halting.halting_masses),
            Plot("By quarter of the run", halting.halting_profile),
            Plot("Expected number of loops", halting.expected_loops),
        ),
        of_state.exits,
    ),
    Section(
        "Experts",
        "A load of 100 % is the mean. Loops that route a token to the same experts (an overlap of 1) apply the same "
        "parameters again; loops that route it to other experts apply other parameters.",
        (
            Plot("Load by layer and loop, last measurement", experts.expert_load, "tall"),
            Plot("Overlap of two loops, last measurement", experts.expert_overlap, "tall"),
            Plot("Load violation by loop, mean over layers", experts.load_violations),
            Plot("From one loop to the next, last measurement", experts.expert_changes),
            Plot("Router entropy by loop", experts.router_entropies),
            Plot("Distinct experts up to a loop", experts.path_diversity),
            Plot("Load violation, all loops", experts.balance),
            Plot("Steps without a token, least-loaded expert", experts.idle_experts),
        ),
        routing,
    ),
    Section(
        "Gradients and learning rates",
        "Norms before clipping. A gradient norm that shrinks towards earlier loops indicates vanishing gradients, one "
        "that grows exploding gradients; gaps are loops without gradient.",
        (
            Plot("Gradient norm", training.gradient_norms),
            Plot("Learning rate", training.learning_rates),
            Plot("Gradient with respect to the state after a loop", training.gradients_by_loop),
            Plot("Relative size of an update", training.update_sizes),
            Plot("Scale of the logits", training.logit_scale),
        ),
        of_training.gradients,
    ),
    Section(
        "Speed and memory",
        "Steps with more loops take longer, so tokens per second vary with the number of loops drawn; MFU counts the "
        "loops that were run.",
        (
            Plot("Throughput", training.throughput),
            Plot("Utilisation", training.utilisation),
            Plot("Memory", training.memory),
        ),
        of_training.speed,
    ),
)

SWEEP: tuple[Section[Runs], ...] = (
    Section(
        "Configuration and loss",
        "One line per run, the strongest colour for the lowest validation loss. Hover over a line to read its values. "
        "Numbers that span more than a factor of 20 have logarithmic axes.",
        (Plot("Values that differ", sweep.parallel_coordinates, "wide"),),
        several.sweep,
    ),
)

SEVERAL_RUNS: tuple[Section[Runs], ...] = (
    Section(
        "Loss",
        "Training loss is smoothed; validation is at the number of loops nearest to each run's own mean depth.",
        (Plot("Validation", compare.validations), Plot("Training", compare.losses)),
        worst_of(of_loss.loss),
    ),
    Section(
        "Loss by number of loops",
        "The last validation loss against the number of loops.",
        (Plot("Validation loss", compare.losses_over_num_loops),),
        worst_of(of_loss.by_num_loops),
    ),
    Section(
        "Loss by cost",
        "Validation at the number of loops nearest to each run's own mean depth, against the cost up to then: training "
        "FLOPs of the loops that were run, and seconds of training without validation, checkpoints and pauses.",
        (
            Plot("By training FLOPs", compare.losses_over_flops),
            Plot("By training time", compare.losses_over_seconds),
        ),
        several.costs,
    ),
    Section(
        "The recurrent state",
        "Means over the last quarter of each run.",
        (
            Plot("Norm", compare.state_norms),
            Plot("Relative change", compare.relative_changes),
            Plot("Token correlation", compare.token_correlations),
        ),
        worst_of(of_state.recurrent),
    ),
    Section(
        "Gradients and speed",
        "Running means.",
        (Plot("Gradient norm", compare.gradient_norms), Plot("Throughput", compare.speeds)),
        worst_of(of_training.gradients),
    ),
)
