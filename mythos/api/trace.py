"""Trace a text through a model."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from mythos.api.model import LanguageModel
from mythos.eval.trace import trace_text
from mythos.report.trace_arrays import TokenTrace


def trace(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    num_loops: int | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> TokenTrace:
    """Run a text and return figures of every token after every loop, as NumPy arrays: ``mythos trace``.

    Args:
        model: a model as ``load`` or ``build_model`` returns it.
        tokenizer: the model's tokenizer, as ``load`` returns it.
        text: between one character and ``max_seq_len`` tokens.
        num_loops: number of loops; None for the mean depth of training.
        layers: 0-based core layers whose attention is returned; None for all, an empty sequence for none.
        heads: heads whose attention is returned; None for all.

    Raises:
        ValueError: an argument is out of range, or the attention takes too many elements.
    """
    return trace_text(model.model, tokenizer, text, model.loops(num_loops), layers, heads)
