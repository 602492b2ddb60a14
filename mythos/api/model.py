"""A model that is called with token ids."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mythos.config.decoding import check_num_loops
from mythos.config.model import ModelConfig
from mythos.config.run import RunConfig
from mythos.model.init import initialize
from mythos.model.mythos import Mythos
from mythos.types import IGNORED, one_document


class Prediction(NamedTuple):
    """Result of calling a ``LanguageModel``: B sequences, S tokens, V entries of the vocabulary, X exits."""

    logits_BSV: Tensor
    """Next-token logits at the last exit, fp32."""
    logits_XBSV: Tensor
    """Next-token logits at each exit."""
    loss: Tensor | None
    """Cross-entropy at the last exit: scalar, mean over targets, in nats per token. None without targets."""
    loss_X: Tensor | None
    """Cross-entropy at each exit."""


class LanguageModel(nn.Module):
    """A looped transformer whose input is a tensor of token ids.

    ``model`` is the module that training, checkpoints and evaluation use. Calls never add noise to the initial state.

    Args:
        num_loops: default number of loops of a call; None if a call has to give it.
    """

    __call__: Callable[..., Prediction]

    def __init__(self, model: Mythos, num_loops: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.num_loops = num_loops

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.embedding.weight.device

    def forward(
        self,
        tokens_BS: Tensor,
        num_loops: int | None = None,
        targets_BS: Tensor | None = None,
        exits: Sequence[int] | None = None,
    ) -> Prediction:
        """Predict the next token at every position; gradients flow through all loops unless they are disabled.

        The loss has no penalty terms, and the router bias of a mixture of experts does not move: ``mythos.train`` does
        both.

        Args:
            tokens_BS: token ids of B documents, integers ``[B, S]`` on any device.
            num_loops: number of loops; None for the mean depth of the model's training.
            targets_BS: token ids to predict, ``[B, S]``; -1 where there is nothing to predict.
            exits: ascending 0-based loops after which all tokens exit; None for the last loop.

        Raises:
            ValueError: an argument has a wrong type, shape or range.
        """
        num_loops = self.loops(num_loops)
        exits = _checked_exits(exits, num_loops)
        batch = one_document(self._checked(tokens_BS, "tokens_BS", 0))
        logits_XBSV = self.model.logits_at(batch, num_loops, exits)
        if targets_BS is None:
            return Prediction(logits_XBSV[-1], logits_XBSV, None, None)
        targets_BS = self._checked(targets_BS, "targets_BS", IGNORED)
        if targets_BS.shape != tokens_BS.shape:
            raise ValueError(
                f"targets_BS: the shape is {list(targets_BS.shape)}, but that of tokens_BS is {list(tokens_BS.shape)}; "
                "give one target for each token."
            )
        target_N = targets_BS.flatten()
        losses = [
            functional.cross_entropy(logits_BSV.flatten(0, 1), target_N, ignore_index=IGNORED)
            for logits_BSV in logits_XBSV
        ]
        return Prediction(logits_XBSV[-1], logits_XBSV, losses[-1], torch.stack(losses))

    def loops(self, num_loops: int | None) -> int:
        """Return a valid number of loops, the default for None.

        Raises:
            ValueError: it is below 1 or beyond four times the model's ``max_loops``, or there is no default.
        """
        num_loops = self.num_loops if num_loops is None else num_loops
        if num_loops is None:
            raise ValueError(
                "num_loops: none was given, and a model that was built from its architecture alone has no default; "
                "give a number from 1 on."
            )
        check_num_loops(num_loops, self.config.max_loops)
        return num_loops

    def _checked(self, ids_BS: Tensor, name: str, lowest: int) -> Tensor:
        """Token ids as int64 on the model's device."""
        if ids_BS.is_floating_point() or ids_BS.is_complex() or ids_BS.dtype == torch.bool:
            raise ValueError(f"{name}: the dtype is {ids_BS.dtype}, but token ids are integers; give torch.int64.")
        if ids_BS.dim() != 2 or not ids_BS.numel():
            raise ValueError(
                f"{name}: the shape is {list(ids_BS.shape)}, but it must be [sequences, tokens], at least 1 of each."
            )
        if ids_BS.shape[1] > self.config.max_seq_len:
            raise ValueError(
                f"{name}: {ids_BS.shape[1]} tokens were given, but the model takes {self.config.max_seq_len}; "
                "shorten the sequences."
            )
        least, largest = (int(bound) for bound in ids_BS.aminmax())
        if least < lowest or largest >= self.config.vocab_size:
            wrong = least if least < lowest else largest
            raise ValueError(
                f"{name}: the id {wrong} was given, but ids range from {lowest} to {self.config.vocab_size - 1}; "
                "encode the text with the model's own tokenizer."
            )
        return ids_BS.to(self.device, torch.int64)


def build_model(config: RunConfig | ModelConfig, *, seed: int | None = None) -> LanguageModel:
    """Build a model with initial values, in fp32 on the CPU and in evaluation mode.

    The values depend on the seed and the architecture only; ``run.init_from`` is not read.

    Args:
        config: a run's configuration, or only an architecture, which has no default number of loops.
        seed: seed of the initial values; None for ``run.seed``, and for 0 if there is only an architecture.
    """
    if isinstance(config, RunConfig):
        model = LanguageModel(Mythos(config.model, config.halting), config.mean_loops)
        seed = config.run.seed if seed is None else seed
    else:
        model = LanguageModel(Mythos(config))
    initialize(model.model, model.config, seed or 0)
    return model.eval()


def _checked_exits(exits: Sequence[int] | None, num_loops: int) -> tuple[int, ...]:
    """Ascending exits, the last loop by default."""
    checked = (num_loops - 1,) if exits is None else tuple(exits)
    if not checked or checked != tuple(sorted(set(checked))):
        raise ValueError(f"exits: {list(checked)} was given; name at least one loop, in ascending order and once each.")
    if checked[0] < 0 or checked[-1] >= num_loops:
        wrong = checked[0] if checked[0] < 0 else checked[-1]
        raise ValueError(
            f"exits: {wrong} was given, but {num_loops} loops have the exits 0 to {num_loops - 1}; raise num_loops or "
            "choose among them."
        )
    return checked
