"""Log-likelihoods of continuations and greedy text from a run's model, at a chosen depth or under an exit rule."""

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
from mythos.eval.read_out import Exited, read_last
from mythos.eval.restore import check_data, restore
from mythos.model.mythos import Mythos
from mythos.types import IGNORED, Batch

MAX_LOOPS = 1024
"""More passes than this are a mistake: no run trains near it, and states and caches grow with every pass."""
BATCH_TOKENS = 8192
"""Tokens of one forward, padding included."""


class Score(NamedTuple):
    """What a continuation is worth."""

    log_prob: float
    """Sum over its tokens, in nats."""
    is_greedy: bool
    """Whether every token is the likeliest one."""
    num_tokens: int
    num_loops: float
    """Passes after which its tokens were read, a mean."""


def mean_loops(scores: Sequence[Score]) -> float:
    """Passes after which a token was read, a mean over all tokens."""
    return sum(one.num_tokens * one.num_loops for one in scores) / sum(one.num_tokens for one in scores)


class Scorer:
    """A model with its tokenizer, ready to score and to write.

    A text begins with the separator, as documents do in training. Rows of similar length share a batch; they are
    padded at the end, where no token sees the padding. Equal requests in an equal order give equal bits.
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

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads, the separator included."""
        return self.model.config.max_seq_len

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without the separator."""
        return self.tokenizer.encode(text).ids

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """Score each continuation after its context, given as tokens; the context begins with the separator.

        A pair that is longer than the model reads loses the beginning of its context.
        """
        assert all(context and continuation for context, continuation in pairs), "empty context or continuation"
        order = sorted(range(len(pairs)), key=lambda index: (-len(pairs[index][0]) - len(pairs[index][1]), index))
        scores: dict[int, Score] = {}
        for group in self._batches(order, pairs):
            left = self._read([pairs[index] for index in group])
            lengths = [len(self._shortened(*pairs[index])[1]) for index in group]
            parts = zip(*(part.split(lengths) for part in left), strict=True)
            for index, (nll_N, is_right_N, num_loops_N) in zip(group, parts, strict=True):
                scores[index] = Score(
                    log_prob=-float(nll_N.double().sum()),
                    is_greedy=bool(is_right_N.all()),
                    num_tokens=len(nll_N),
                    num_loops=float(num_loops_N.double().mean()),
                )
        return [scores[index] for index in range(len(pairs))]

    def write(self, prompts: Sequence[list[int]], max_new_tokens: int, until: Sequence[str]) -> list[str]:
        """Continue each prompt with the likeliest tokens up to a stop string, the separator, or the limit.

        Prompts of equal length share a batch. The stop string is not part of the result. A prompt that leaves no room
        loses its beginning.
        """
        room = max(1, self.max_length - max_new_tokens)
        shortened = [prompt[-room:] for prompt in prompts]
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(shortened):
            by_length.setdefault(len(prompt), []).append(index)
        texts: dict[int, str] = {}
        for length, indices in sorted(by_length.items(), reverse=True):
            num_rows = max(1, self.batch_tokens // (length + max_new_tokens))
            for start in range(0, len(indices), num_rows):
                group = indices[start : start + num_rows]
                found = self._write([shortened[index] for index in group], max_new_tokens, until)
                texts |= dict(zip(group, found, strict=True))
        return [texts[index] for index in range(len(prompts))]

    @torch.no_grad()
    def _write(self, prompts: list[list[int]], max_new_tokens: int, until: Sequence[str]) -> list[str]:
        """Prompts of equal length."""
        num_new = min(max_new_tokens, self.max_length - len(prompts[0]))
        cache = self.model.new_cache(self.num_loops, len(prompts[0]) + num_new)
        fresh_BS = torch.tensor(prompts, device=self.model.embedding.weight.device)
        written: list[list[int]] = [[] for _ in prompts]
        done: dict[int, str] = {}
        for _ in range(num_new):
            found = self.model.decode_until(fresh_BS, cache, self.rule, num_logits=1)
            fresh_BS = found.logits_BSV[:, -1].argmax(-1, keepdim=True)
            for row, token in enumerate(fresh_BS[:, 0].tolist()):
                if row not in done:
                    if token != self.separator_id:
                        written[row].append(token)
                    text = self.tokenizer.decode(written[row], skip_special_tokens=False)
                    cut = min((place for stop in until if (place := text.find(stop)) >= 0), default=None)
                    if cut is not None or token == self.separator_id:
                        done[row] = text[:cut]
            if len(done) == len(prompts):
                break
        whole = (self.tokenizer.decode(tokens, skip_special_tokens=False) for tokens in written)
        return [done.get(row, text) for row, text in enumerate(whole)]

    def _batches(self, order: list[int], pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
        """Groups of pairs, longest first, of at most ``batch_tokens`` tokens with their padding."""
        groups: list[list[int]] = []
        longest = 0
        for index in order:
            if not groups or (len(groups[-1]) + 1) * longest > self.batch_tokens:
                groups.append([])
                longest = min(len(pairs[index][0]) + len(pairs[index][1]) - 1, self.max_length)
            groups[-1].append(index)
        return groups

    def _shortened(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """The end of both that the model can read: it reads all but the last token and predicts all but the first."""
        continuation = continuation[-self.max_length :]
        return context[-(self.max_length + 1 - len(continuation)) :], continuation

    def _batch(self, pairs: list[tuple[list[int], list[int]]]) -> Batch:
        return _right_padded([self._shortened(*pair) for pair in pairs], self.model.embedding.weight.device)

    @torch.no_grad()
    def _read(self, pairs: list[tuple[list[int], list[int]]]) -> Exited:
        """Read the tokens of the continuations, row after row."""
        batch = self._batch(pairs)
        if self.rule is None:
            return read_last(self.model, batch, self.num_loops)
        cache = self.model.new_cache(self.num_loops, batch.tokens_BS.shape[1])
        found = self.model.decode_until(batch.tokens_BS, cache, self.rule)
        keep_BS = batch.targets_BS != IGNORED
        log_prob_NV, target_N = found.logits_BSV[keep_BS].log_softmax(-1), batch.targets_BS[keep_BS]
        nll_N = -log_prob_NV.gather(-1, target_N[:, None]).squeeze(-1)
        return Exited(nll_N, log_prob_NV.argmax(-1) == target_N, found.num_loops_BS[keep_BS])


def scorer_of(
    run: Path, num_loops: int | None = None, rule: ExitRule | None = None, batch_tokens: int = BATCH_TOKENS
) -> tuple[Scorer, RunConfig, Manifest]:
    """A scorer of a run's newest checkpoint.

    Args:
        num_loops: passes; None for the mean depth of training.

    Raises:
        ConfigError: no checkpoint, a depth that cannot be, or data packed anew since with another tokenizer.
    """
    if num_loops is not None:
        check_loops(num_loops)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, model, manifest = restore(run, device)
    check_rule(rule, config.halting.kind)
    check_data(config, manifest)
    directory = Path(config.data.directories[0])
    tokenizer, separator_id = load_tokenizer(directory), read_manifest(directory).separator_id
    loops = num_loops or max(1, round(config.depth.mean))
    return Scorer(model, tokenizer, separator_id, loops, rule, batch_tokens), config, manifest


def check_loops(num_loops: int) -> None:
    """Refuse a depth that cannot be meant.

    Raises:
        ConfigError: below 1 or above ``MAX_LOOPS``.
    """
    if not 1 <= num_loops <= MAX_LOOPS:
        raise ConfigError(f"num_loops: {num_loops} was given; the core runs at least 1 and at most {MAX_LOOPS} passes.")


def _right_padded(pairs: list[tuple[list[int], list[int]]], device: torch.device) -> Batch:
    """One document a row; the targets are the tokens of the continuations."""
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
