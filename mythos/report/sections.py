"""What stands on the page, in which order, and how to read it."""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from mythos.report.figures import compare, evaluation, experts, loss, state, sweep, training
from mythos.report.figures.compare import Runs
from mythos.report.read import Run

T = TypeVar("T", Run, Runs)


class Plot(NamedTuple, Generic[T]):
    """A figure and its caption."""

    title: str
    draw: Callable[[T], Any]
    size: str = ""
    """``short``, ``tall`` or ``wide`` (which scrolls sideways on a phone); empty for the usual one."""


class Section(NamedTuple, Generic[T]):
    """Plots that belong together; left out when all of them are absent."""

    title: str
    note: str
    plots: tuple[Plot[T], ...]


ONE_RUN: tuple[Section[Run], ...] = (
    Section(
        "Loss",
        "Each training step runs at a depth of its own; validation reads the same text every time.",
        (
            Plot("Training and validation", loss.loss),
            Plot("Penalties", loss.penalties),
            Plot("Alarms, skipped steps, rollbacks", loss.timeline, "short"),
        ),
    ),
    Section(
        "What a loop is worth",
        "Held-out loss after T passes over the core, all depths from one forward. Lines that lie on each "
        "other mean that the model ignores its loops. The dotted line marks the mean depth of training; the "
        "curve, where there is one, is the fit L∞ + Z exp(−z T / mean).",
        (
            Plot("By depth, over training", loss.loss_by_depth),
            Plot("At the last look", loss.loss_over_depth),
            Plot("On a few training sequences", loss.slice_loss_by_depth),
            Plot("Depth drawn", loss.depth_drawn),
        ),
    ),
    Section(
        "Evaluated: depth",
        "Held-out tokens, all passes from one forward. The curve is the fit L∞ + Z exp(−z T / mean) over the depths "
        "that were asked for; the dotted line marks the mean depth of training. An exit rule is worth its passes where "
        "its points lie below the line of equal depth for all tokens. Where there is a line for the experts of the "
        "first pass, its distance to that of free routing is what choosing experts anew in every pass is worth.",
        (
            Plot("Loss after T passes", evaluation.swept_loss),
            Plot("Accuracy after T passes", evaluation.swept_accuracy),
            Plot("Convergence of the state", evaluation.convergence),
            Plot("Angle between the states before and after a pass", evaluation.angles),
            Plot("Exit rules: loss", evaluation.exit_rules),
            Plot("Exit rules: accuracy", evaluation.exit_accuracies),
            Plot("Exits that move when the input is disturbed", evaluation.exit_sensitivity),
        ),
    ),
    Section(
        "Evaluated: tasks",
        "Problems solved at the passes given; crosses are results under an exit rule.",
        (
            Plot("Solved, by difficulty and depth", evaluation.solved_by_difficulty),
            Plot("Accuracy by task", evaluation.task_accuracies),
        ),
    ),
    Section(
        "The recurrent state",
        "Root mean square of the state after each loop. A norm that levels off over the loops has found its "
        "fixed point; one that keeps growing is on its way to diverge. Gaps: loops that a step did not run.",
        (
            Plot("Norm by loop, over training", state.state_norms),
            Plot("Norm against the loop, by quarter of the run", state.state_norm_profile),
            Plot("Relative change |h′ − h| / |h′|", state.relative_changes),
            Plot("Relative change, by quarter of the run", state.relative_change_profile),
        ),
    ),
    Section(
        "Signs of collapse and of divergence",
        "Token correlation near 1: all tokens of a sequence have the same state. A cosine below that of the loop "
        "before, or a second difference above 1: the state turns back and forth instead of settling.",
        (
            Plot("Token correlation", state.token_correlations),
            Plot("Token correlation, by quarter of the run", state.token_correlation_profile),
            Plot("Cosine to the state before", state.cosines),
            Plot("Second difference", state.curvature_ratios),
            Plot("Decay, gain and growth of one loop", state.recurrence),
            Plot("What each core block adds, last trace", state.update_norms),
        ),
    ),
    Section(
        "When tokens leave",
        "Probability of leaving after each loop, mean over tokens. All of it on the last loop: the gate is not used.",
        (
            Plot("By loop, over training", experts.halting_masses),
            Plot("By quarter of the run", experts.halting_profile),
            Plot("Expected passes", experts.expected_loops),
        ),
    ),
    Section(
        "Experts",
        "A load of 100 % is the mean. Loops that visit the same experts (an overlap of 1) repeat one computation; "
        "loops that visit others have parameters of their own.",
        (
            Plot("Load by layer and loop, last trace", experts.expert_load, "tall"),
            Plot("Overlap of two loops, last trace", experts.expert_overlap, "tall"),
            Plot("Load violation by loop, mean over layers", experts.load_violations),
            Plot("From one loop to the next, last trace", experts.expert_changes),
            Plot("Router entropy by loop", experts.router_entropies),
            Plot("Experts met up to a loop", experts.path_diversity),
            Plot("Load violation, all loops", experts.balance),
            Plot("Steps without a token, idlest expert", experts.idle_experts),
        ),
    ),
    Section(
        "Gradients and learning rates",
        "Norms before clipping. A gradient that shrinks towards earlier loops vanishes, one that grows explodes; "
        "gaps are loops without gradient.",
        (
            Plot("Gradient norm", training.gradient_norms),
            Plot("Learning rate", training.learning_rates),
            Plot("Gradient by the state after a loop", training.gradients_by_loop),
            Plot("Relative size of an update", training.update_sizes),
            Plot("Scale of the logits", training.logit_scale),
        ),
    ),
    Section(
        "Speed and memory",
        "Deeper steps take longer, so tokens per second scatter with the depth drawn; MFU counts the depth run.",
        (
            Plot("Throughput", training.throughput),
            Plot("Utilisation", training.utilisation),
            Plot("Memory", training.memory),
        ),
    ),
)

SWEEP: tuple[Section[Runs], ...] = (
    Section(
        "Configuration and loss",
        "One line a run, the strongest colour for the lowest validation loss. Point at it to read its values. "
        "Numbers that span more than a factor of 20 are laid out by their logarithms.",
        (Plot("Values that differ", sweep.parallel_coordinates, "wide"),),
    ),
)

SEVERAL_RUNS: tuple[Section[Runs], ...] = (
    Section(
        "Loss",
        "Training loss is smoothed; validation is at the depth nearest to each run's own mean.",
        (Plot("Validation", compare.validations), Plot("Training", compare.losses)),
    ),
    Section(
        "What a loop is worth",
        "The last validation loss by depth.",
        (Plot("Validation loss over depth", compare.losses_over_depth),),
    ),
    Section(
        "What the loss cost",
        "Validation at the depth nearest to each run's own mean, against what the run had spent by then: training "
        "FLOPs at the depth that was run, and seconds of training without validation, checkpoints and pauses.",
        (
            Plot("Equal FLOPs", compare.losses_over_flops),
            Plot("Equal time", compare.losses_over_seconds),
        ),
    ),
    Section(
        "The recurrent state",
        "Means over the last quarter of each run.",
        (
            Plot("Norm", compare.state_norms),
            Plot("Relative change", compare.relative_changes),
            Plot("Token correlation", compare.token_correlations),
        ),
    ),
    Section(
        "Gradients and speed",
        "Running means.",
        (Plot("Gradient norm", compare.gradient_norms), Plot("Throughput", compare.speeds)),
    ),
)
