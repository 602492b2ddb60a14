"""The tokens that a run reads: datasets, mixture and batch sizes."""

import math
from fractions import Fraction
from itertools import pairwise
from typing import Final

from mythos.config.base import Count, NonNegative, Positive, PositiveInt, config
from mythos.config.paths import FolderPath

MAX_CYCLE: Final = 100_000
"""Longest cycle of samples after which a mixture meets its weights exactly."""


@config
class Source:
    """One packed dataset of a mixture."""

    dir: FolderPath
    """Folder written by ``mythos-data pack``; all sources of a mixture share one tokenizer."""
    weight: NonNegative
    """Share of the samples, relative to the other sources' weights."""


@config
class Stage:
    """Weights that apply from a given sample on."""

    from_sample: PositiveInt
    """Global index of the first sample that is drawn by these weights."""
    weights: tuple[NonNegative, ...]
    """One for each source, in their order."""


@config
class DataConfig:
    """Packed shards under ``dir``, or a mixture of several datasets under ``sources``."""

    dir: FolderPath | None = None
    """Folder written by ``mythos-data pack``; short for one source of weight 1."""
    sources: tuple[Source, ...] = ()
    """Datasets to mix, instead of ``dir``."""
    stages: tuple[Stage, ...] = ()
    """How the weights of ``sources`` change over training; each stage lasts until the next."""
    seq_len: PositiveInt
    """Tokens of a sequence, the window of training."""
    batch_size: PositiveInt
    """Sequences in one optimiser step, over all devices and micro-batches."""
    micro_batch_size: PositiveInt
    """Sequences that one device processes at a time."""
    mask_documents: bool = True
    """Keep tokens from attending across documents."""
    num_workers: Count = 0
    """Processes that read ahead; they change no sample's position in the stream."""
    skipped: tuple[tuple[Count, Count], ...] = ()
    """Ranges [start, end) of global sample indices that are never trained on."""
    max_epochs: Positive | None = None
    """Largest number of times that a run may read each of its training windows; null sets no limit."""

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size} and micro_batch_size is {self.micro_batch_size}; "
                "a step is a whole number of micro-batches, so the first must be a multiple of the second."
            )
        if (self.dir is None) == (not self.sources):
            given = "neither was given" if self.dir is None else f"both {self.dir!r} and sources were given"
            raise ValueError(f"dir names one dataset and sources several, but {given}; give one of the two.")
        for start, end in self.skipped:
            if start >= end:
                raise ValueError(
                    f"skipped has the range [{start}, {end}), which is empty; its end comes after its start."
                )
        self._check_stages()

    @property
    def directories(self) -> tuple[str, ...]:
        """Folders of the packed datasets, in the order of their weights."""
        return (self.dir,) if self.dir is not None else tuple(source.dir for source in self.sources)

    @property
    def stage_weights(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The first sample of each stage with its weights as whole numbers; the first stage begins at 0."""
        first = tuple(source.weight for source in self.sources) or (1.0,)
        later = ((stage.from_sample, whole_weights(stage.weights, "stages.weights")) for stage in self.stages)
        return ((0, whole_weights(first, "sources.weight")), *later)

    def _check_stages(self) -> None:
        for stage in self.stages:
            if len(stage.weights) != len(self.directories):
                raise ValueError(
                    f"stages has {len(stage.weights)} weights from sample {stage.from_sample} on, but there are "
                    f"{len(self.directories)} sources; give each source one weight, 0 to leave it out."
                )
        stages = self.stage_weights
        for (start, weights), (end, _) in pairwise(stages):
            cycle = sum(weights)
            if end <= start or (end - start) % cycle:
                nearest = start + max(1, round((end - start) / cycle)) * cycle
                raise ValueError(
                    f"stages.from_sample is {end} after a stage that begins at {start} and meets its weights every "
                    f"{cycle} samples; begin after whole cycles, for instance at {nearest}."
                )


def whole_weights(weights: tuple[float, ...], name: str) -> tuple[int, ...]:
    """Return the smallest whole numbers in the ratio of ``weights``, read as the decimal numbers that they print as.

    Raises:
        ValueError: all are zero, or their sum is above ``MAX_CYCLE``.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    if not sum(exact):
        raise ValueError(
            f"{name} is {', '.join(map(str, weights))}, which sums to zero; give one source a weight above 0."
        )
    denominator = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * denominator) for weight in exact]
    divisor = math.gcd(*whole)
    if (cycle := sum(whole) // divisor) > MAX_CYCLE:
        raise ValueError(
            f"{name} is {', '.join(map(str, weights))}, which only {cycle} samples can meet exactly, but at most "
            f"{MAX_CYCLE} are allowed; round the weights."
        )
    return tuple(weight // divisor for weight in whole)
