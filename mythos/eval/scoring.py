"""Log-likelihoods and greedy generation with a run's model, at a fixed number of loops or under an exit rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mythos.checkpoint.manifest import Manifest
from mythos.config.base import ConfigError
from mythos.config.decoding import ExitRule
from mythos.config.run import RunConfig
from mythos.data.manifest import read_manifest
from mythos.data.tokenizer import load_tokenizer
from mythos.eval.exit_rule import check_rule
from mythos.eval.restore import check_data, choose_device, restore
from mythos.eval.token_metrics import TokenScores, last_loop_scores
from mythos.model.mythos import Mythos
from mythos.types import IGNORED, Batch

MAX_LOOPS = 1024
"""Larger loop counts are refused: no run trains near this one, and states and caches grow with every loop."""
BATCH_TOKENS = 8192
"""Default maximum number of tokens of one forward, padding included."""


class Score(NamedTuple):
    """Score of a continuation."""

    log_prob: float
    """Log-likelihood, summed over the tokens, in nats."""
    is_greedy: bool
    """Whether every token is the prediction."""
    num_tokens: int
    num_loops: float
    """Average number of loops of a token."""


def mean_loops(scores: Sequence[Score]) -> float:
    """Average number of loops over all scored tokens."""
    return sum(one.num_tokens * one.num_loops for one in scores) / sum(one.num_tokens for one in scores)


class Scorer:
    """Scores continuations and generates text with a model and its tokenizer.

    A text begins with the separator, as documents do in training. Requests of similar length share a batch and are
    padded at the end, where no token attends to the padding. Equal requests in an equal order give bitwise equal
    results.
    """

    def __init__(
        self,
        model: Mythos,
        tokenizer: Tokenizer,
        separator_id: int,
        num_loops: int,
        rule: ExitRule | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        check_loops(num_loops)
        self.model = model
        self.tokenizer = tokenizer
        self.separator_id = separator_id
        self.num_loops = num_loops
        self.rule = rule
        self.batch_tokens = batch_tokens
        self.num_shortened = 0
        """Contexts and prompts so far that were truncated from the left, because they exceed ``max_length``."""

    @property
    def max_length(self) -> int:
        """Maximum number of input tokens, the separator included."""
        return self.model.config.max_seq_len

    def encode(self, text: str) -> list[int]:
        """Encode a text without the separator."""
        return self.tokenizer.encode(text).ids

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """Score each continuation given its context, both as tokens; the context begins with the separator.

        Context beyond ``max_length`` is truncated from the left; ``num_shortened`` counts such requests.

        Raises:
            ConfigError: a continuation is empty.
        """
        for index, (context, continuation) in enumerate(pairs):
            assert context, "a context begins with the separator"
            if not continuation:
                end = self.tokenizer.decode(context[-20:])
                raise ConfigError(
                    f"request {index + 1} of {len(pairs)}, whose context ends in {end!r}, has an empty continuation, "
                    "which has no likelihood; remove it from the task, or give it a token."
                )
        self.num_shortened += sum(len(one) + len(other) > self.max_length + 1 for one, other in pairs)
        order = sorted(range(len(pairs)), key=lambda index: (-len(pairs[index][0]) - len(pairs[index][1]), index))
        scores: dict[int, Score] = {}
        for group in self._batches(order, pairs):
            token_scores = self._token_scores([pairs[index] for index in group])
            lengths = [len(self._truncated(*pairs[index])[1]) for index in group]
            parts = zip(*(part.split(lengths) for part in token_scores), strict=True)
            for index, (nll_N, is_correct_N, num_loops_N) in zip(group, parts, strict=True):
                scores[index] = Score(
                    log_prob=-float(nll_N.double().sum()),
                    is_greedy=bool(is_correct_N.all()),
                    num_tokens=len(nll_N),
                    num_loops=float(num_loops_N.double().mean()),
                )
        return [scores[index] for index in range(len(pairs))]

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int, until: Sequence[str]) -> list[str]:
        """Continue each prompt greedily up to a stop string, the separator, or ``max_new_tokens``.

        Prompts of equal length share a batch. The stop string is not part of the result. A prompt that leaves room for
        fewer tokens within ``max_length`` gets fewer. Only one that leaves none is truncated from the left, to make
        room for the new tokens or half of ``max_length``; ``num_shortened`` counts these.
        """
        is_long = [len(prompt) >= self.max_length for prompt in prompts]
        max_prompt = self.max_length - min(max_new_tokens, self.max_length // 2)
        truncated = [prompt[-max_prompt:] if long else prompt for prompt, long in zip(prompts, is_long, strict=True)]
        self.num_shortened += sum(is_long)
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(truncated):
            by_length.setdefault(len(prompt), []).append(index)
        texts: dict[int, str] = {}
        for length, indices in sorted(by_length.items(), reverse=True):
            num_rows = max(1, self.batch_tokens // min(length + max_new_tokens, self.max_length))
            for start in range(0, len(indices), num_rows):
                group = indices[start : start + num_rows]
                new_texts = self._generate([truncated[index] for index in group], max_new_tokens, until)
                texts |= dict(zip(group, new_texts, strict=True))
        return [texts[index] for index in range(len(prompts))]

    @torch.no_grad()
    def _generate(self, prompts: list[list[int]], max_new_tokens: int, until: Sequence[str]) -> list[str]:
        """Continue prompts of equal length."""
        num_new = min(max_new_tokens, self.max_length - len(prompts[0]))
        cache = self.model.new_cache(self.num_loops, len(prompts[0]) + num_new)
        input_BS = torch.tensor(prompts, device=self.model.embedding.weight.device)
        generated: list[list[int]] = [[] for _ in prompts]
        finished: dict[int, str] = {}
        for _ in range(num_new):
            decoded = self.model.decode_until(input_BS, cache, self.rule, num_logits=1)
            input_BS = decoded.logits_BSV[:, -1].argmax(-1, keepdim=True)
            for row, token in enumerate(input_BS[:, 0].tolist()):
                if row not in finished:
                    if token != self.separator_id:
                        generated[row].append(token)
                    text = self.tokenizer.decode(generated[row], skip_special_tokens=False)
                    end = min((index for stop in until if (index := text.find(stop)) >= 0), default=None)
                    if end is not None or token == self.separator_id:
                        finished[row] = text[:end]
            if len(finished) == len(prompts):
                break
        texts = (self.tokenizer.decode(tokens, skip_special_tokens=False) for tokens in generated)
        return [finished.get(row, text) for row, text in enumerate(texts)]

    def _batches(self, order: list[int], pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
        """Group the pairs, the longest first, into batches of at most ``batch_tokens`` tokens with padding."""
        groups: list[list[int]] = []
        longest = 0
        for index in order:
            if not groups or (len(groups[-1]) + 1) * longest > self.batch_tokens:
                groups.append([])
                longest = min(len(pairs[index][0]) + len(pairs[index][1]) - 1, self.max_length)
            groups[-1].append(index)
        return groups

    def _truncated(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Truncate a pair from the left to ``max_length`` + 1 tokens, as the last one is only a target."""
        continuation = continuation[-self.max_length :]
        return context[-(self.max_length + 1 - len(continuation)) :], continuation

    def _batch(self, pairs: list[tuple[list[int], list[int]]]) -> Batch:
        return _right_padded([self._truncated(*pair) for pair in pairs], self.model.embedding.weight.device)

    @torch.no_grad()
    def _token_scores(self, pairs: list[tuple[list[int], list[int]]]) -> TokenScores:
        """Score the tokens of the continuations, concatenated over the pairs."""
        batch = self._batch(pairs)
        if self.rule is None:
            return last_loop_scores(self.model, batch, self.num_loops)
        cache = self.model.new_cache(self.num_loops, batch.tokens_BS.shape[1])
        decoded = self.model.decode_until(batch.tokens_BS, cache, self.rule)
        keep_BS = batch.targets_BS != IGNORED
        log_prob_NV, target_N = decoded.logits_BSV[keep_BS].log_softmax(-1), batch.targets_BS[keep_BS]
        nll_N = -log_prob_NV.gather(-1, target_N[:, None]).squeeze(-1)
        return TokenScores(nll_N, log_prob_NV.argmax(-1) == target_N, decoded.num_loops_BS[keep_BS])


def load_scorer(
    run: Path, num_loops: int | None = None, rule: ExitRule | None = None, batch_tokens: int = BATCH_TOKENS
) -> tuple[Scorer, RunConfig, Manifest]:
    """Restore a run's newest checkpoint and return its scorer, configuration and manifest.

    Args:
        num_loops: number of loops; None for the rounded mean depth of training.

    Raises:
        ConfigError: there is no checkpoint, ``num_loops`` is out of range, the model does not support the rule, or
            the data have been packed again since, possibly with another tokenizer.
    """
    if num_loops is not None:
        check_loops(num_loops)
    config, model, manifest = restore(run, choose_device())
    check_rule(rule, config.halting.kind)
    check_data(config, manifest)
    directory = Path(config.data.directories[0])
    tokenizer, separator_id = load_tokenizer(directory), read_manifest(directory).separator_id
    loops = num_loops or config.mean_loops
    return Scorer(model, tokenizer, separator_id, loops, rule, batch_tokens), config, manifest


def check_loops(num_loops: int) -> None:
    """Check a number of loops.

    Raises:
        ConfigError: the number is below 1 or above ``MAX_LOOPS``.
    """
    if not 1 <= num_loops <= MAX_LOOPS:
        raise ConfigError(f"num_loops: {num_loops} was given; the core runs at least 1 and at most {MAX_LOOPS} loops.")


def _right_padded(pairs: list[tuple[list[int], list[int]]], device: torch.device) -> Batch:
    """A batch with one document per row, whose targets are the tokens of the continuations."""
    longest = max(len(context) + len(continuation) for context, continuation in pairs) - 1
    tokens_BS = torch.zeros(len(pairs), longest, dtype=torch.int64)
    targets_BS = torch.full_like(tokens_BS, IGNORED)
    for row, (context, continuation) in enumerate(pairs):
        whole = torch.tensor(context + continuation)
        tokens_BS[row, : len(whole) - 1] = whole[:-1]
        targets_BS[row, len(context) - 1 : len(whole) - 1] = whole[len(context) :]
    return Batch(
        tokens_BS=tokens_BS.to(device),
        targets_BS=targets_BS.to(device),
        positions_BS=torch.arange(longest, device=device).expand_as(tokens_BS),
        document_ids_BS=None,
        sample_ids_B=torch.arange(len(pairs), device=device),
        num_targets=_count(targets_BS),
        num_sequences=torch.tensor(float(len(pairs))),
    )


def _count(targets_BS: Tensor) -> Tensor:
    return (targets_BS != IGNORED).sum().float()
