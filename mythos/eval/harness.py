"""EleutherAI's lm-evaluation-harness: the model ``mythos``, and the local task files."""

import difflib
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final, NamedTuple

from mythos.config.base import ConfigError
from mythos.config.extras import install_command
from mythos.eval.exit_rule import chosen_rule
from mythos.eval.scoring import BATCH_TOKENS, Score, Scorer, load_scorer, mean_loops

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError:
    command = install_command("eval")
    raise ConfigError(f"lm-eval, which runs these tasks, is not installed; run {command}.") from None

TASKS: Final = Path(__file__).parent / "tasks"
"""Folder of the task files that read local data."""
_LOCAL: Final = "_local"
"""Suffix of the names of those tasks."""
_ERROR: Final = "_stderr"
"""Suffix of the harness's names of standard errors."""
_BOOTSTRAP_DRAWS: Final = 1000


@register_model("mythos")
class MythosLM(TemplateLM):
    """Wraps a run's newest checkpoint for the harness: ``--model mythos --model_args run=DIR,num_loops=8``."""

    def __init__(
        self,
        run: str,
        num_loops: int | None = None,
        exit_rule: str | None = None,
        exit_threshold: float | None = None,
        batch_tokens: int = BATCH_TOKENS,
        **options: Any,
    ) -> None:
        """Restore the model.

        Args:
            num_loops: number of loops over the core; None for the mean depth of training.
            exit_rule: see ``ExitRule``; None scores every token after the last loop.
            batch_tokens: maximum number of tokens of one forward, padding included.
            options: the harness's own options (batch_size, device), which are ignored.
        """
        super().__init__()
        rule = chosen_rule(exit_rule, exit_threshold)
        scorer, _, _ = load_scorer(Path(run), num_loops, rule, batch_tokens)
        self._set_scorer(scorer)

    @classmethod
    def from_scorer(cls, scorer: Scorer) -> "MythosLM":
        """Wrap a model that has been restored already."""
        model = cls.__new__(cls)
        TemplateLM.__init__(model)
        model._set_scorer(scorer)
        return model

    def _set_scorer(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._device = scorer.model.embedding.weight.device
        self.scores: list[Score] = []
        """Scores of all requests so far."""

    @property
    def eot_token_id(self) -> int:
        return self.scorer.separator_id

    @property
    def max_length(self) -> int:
        """Maximum number of input tokens."""
        return self.scorer.max_length

    @property
    def tokenizer_name(self) -> str:
        return "mythos"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Encode a text as the beginning of a document, after the separator unless ``add_special_tokens=False``."""
        ids = self.scorer.encode(string)
        return ids if add_special_tokens is False else [self.scorer.separator_id, *ids]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        scores = self._score([(context, continuation) for _, context, continuation in requests])
        return [(one.log_prob, one.is_greedy) for one in scores]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, split into windows that predict each token once."""
        pairs: list[tuple[list[int], list[int]]] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.scorer.encode(request.args[0]),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in map(make_disjoint_window, windows):
                pairs.append(window)
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, self._score(pairs), strict=True):
            totals[owner] += score.log_prob
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate text greedily up to a stop string."""
        by_options: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            options = normalize_gen_kwargs(request.args[1])
            if options["do_sample"]:
                raise ConfigError("do_sample: true was given; the harness's model mythos decodes greedily.")
            by_options.setdefault((options["max_gen_toks"], tuple(options["until"])), []).append(index)
        texts: dict[int, str] = {}
        for (max_new_tokens, until), indices in by_options.items():
            prompts = [self.tok_encode(requests[index].args[0]) for index in indices]
            num_before = self.scorer.num_shortened
            texts |= dict(zip(indices, self.scorer.generate(prompts, max_new_tokens, until), strict=True))
            self._report_shortened(self.scorer.num_shortened - num_before, len(prompts))
        return [texts[index] for index in range(len(requests))]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        num_before = self.scorer.num_shortened
        scores = self.scorer.score(pairs)
        self._report_shortened(self.scorer.num_shortened - num_before, len(pairs))
        self.scores += scores
        return scores

    def _report_shortened(self, num_shortened: int, num_requests: int) -> None:
        if num_shortened:
            print(
                f"mythos: {num_shortened} of {num_requests} requests exceed the model's {self.max_length} tokens and "
                "were truncated from the left.",
                file=sys.stderr,
            )


def task_manager(names: Sequence[str], data_dir: Path | None) -> TaskManager:
    """Load the local tasks and, only if a name requires them, the harness's own tasks, which need the network.

    Raises:
        ConfigError: a name is unknown, or the data of a task cannot be read.
    """
    metadata = {"data_dir": None if data_dir is None else str(data_dir)}
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=TASKS, include_defaults=False, metadata=metadata)
    if any(name not in manager.all_tasks and not name.endswith(_LOCAL) for name in names):
        manager = TaskManager(include_path=TASKS, metadata=metadata)
    for name in names:
        if name not in manager.all_tasks:
            raise unknown_task(name, manager.all_tasks)
        try:
            manager.load([name])
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"--tasks: the data of {name} cannot be read ({reason}); tasks whose names end in _local need no "
                "network, only --data-dir."
            ) from None
    return manager


def unknown_task(name: str, known: Sequence[str]) -> ConfigError:
    """The error for an unknown task, with the most similar names."""
    similar = difflib.get_close_matches(name, known, 4) or difflib.get_close_matches(f"{name}{_LOCAL}", known, 4)
    hint = f"similar names: {', '.join(similar)}" if similar else f"{len(known):,} are known, such as piqa_local"
    return ConfigError(f"--tasks: no task is called {name!r}; {hint}.")


class TaskResult(NamedTuple):
    """Result of a model on one task or group of tasks."""

    metrics: dict[str, float]
    """Values by the harness's metric names."""
    num_items: int | None
    """Number of items; None for a group."""
    mean_loops: float
    """Average number of loops of a scored token, over the tasks evaluated together."""
    errors: dict[str, float]
    """Standard errors of the metrics for which the harness has one: of means by their formula, of others by bootstrap;
    none for a single item."""


def evaluate(
    scorer: Scorer,
    names: Sequence[str],
    manager: TaskManager,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> dict[str, TaskResult]:
    """Evaluate tasks and groups, including all members of a group.

    Args:
        manager: the result of ``task_manager``.
        limit: number of leading items of each task; None for all.
        num_fewshot: few-shot examples before each item; None for the number that the task specifies.
    """
    model = MythosLM.from_scorer(scorer)
    with _quiet_bootstrap():
        evaluated = simple_evaluate(
            model=model,
            tasks=list(names),
            num_fewshot=num_fewshot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=_BOOTSTRAP_DRAWS,
        )
    assert evaluated is not None
    counts = {name: count["effective"] for name, count in evaluated["n-samples"].items()}
    loops = mean_loops(model.scores) if model.scores else float(scorer.num_loops)
    results = {}
    for name, metrics in {**evaluated["results"], **evaluated.get("groups", {})}.items():
        values = {key.partition(",")[0]: float(value) for key, value in metrics.items() if isinstance(value, float)}
        errors = {key.removesuffix(_ERROR): value for key, value in values.items() if key.endswith(_ERROR)}
        without_errors = {key: value for key, value in values.items() if not key.endswith(_ERROR)}
        known = {key: error for key, error in errors.items() if math.isfinite(error)}
        results[name] = TaskResult(without_errors, counts.get(name), loops, known)
    return results


@contextmanager
def _quiet_bootstrap() -> Iterator[None]:
    """Let the harness draw in this process: it would fork one that has threads, and print to stdout."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
