"""New parts are the model without them, bitwise, and learn; text in pieces decodes as one, with early exits."""

import pytest
import torch
from helpers import MODELS, random_batch, relative_error
from part_pairs import is_of_part, pair, trained
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.config.parts import PARTS
from mythos.model.mythos import Mythos

every_kind = pytest.mark.parametrize("kind", PARTS)
every_identity = pytest.mark.parametrize("kind", sorted(PARTS.keys() - {"grt_gate", "loop_router"}))
"""Kinds that start as the identity."""
every_model = pytest.mark.parametrize("name", MODELS)


@every_identity
@every_model
def test_a_new_part_is_the_model_without_it_bitwise(kind: str, name: str) -> None:
    model, without = pair(PARTS[kind].config(), name=name, is_new=True)
    (ours, our_gradients), (theirs, their_gradients) = trained(model), trained(without)
    assert torch.equal(ours, theirs)
    assert all(torch.equal(our_gradients[key], gradient) for key, gradient in their_gradients.items())
    for rule in (None, ExitRule("relative_change", 0.4)):
        (our_logits, our_loops), (their_logits, their_loops) = decoded(model, rule), decoded(without, rule)
        assert torch.equal(our_logits, their_logits)
        assert torch.equal(our_loops, their_loops)


@torch.no_grad()
def decoded(model: Mythos, rule: ExitRule | None, lengths: tuple[int, ...] = (6, 3, 1, 1, 2)) -> tuple[Tensor, Tensor]:
    """Logits and numbers of loops of a prompt and of pieces after it."""
    cache = model.new_cache(6, None)
    pieces = random_batch(model.config).tokens_BS.split(lengths, dim=1)
    results = [model.decode_until(piece, cache, rule) for piece in pieces]
    return torch.cat([each.logits_BSV for each in results], 1), torch.cat([each.num_loops_BS for each in results], 1)


@every_identity
def test_a_new_part_learns_from_the_first_step_and_all_of_it_from_the_third(kind: str) -> None:
    """A product of two matrices of which one starts at zero opens one after the other."""
    model, _ = pair(PARTS[kind].config(), is_new=True)
    of_part = {key: value for key, value in model.named_parameters() if is_of_part(key)}
    for step in range(3):
        trained(model)
        learns = {key: bool(value.grad.any()) for key, value in of_part.items()}
        assert all(learns.values()) or (any(learns.values()) and step < 2), learns
        with torch.no_grad():
            for value in of_part.values():
                value.sub_(0.1 * value.grad.sign())


@every_kind
def test_pieces_with_early_exits_decode_as_one(kind: str) -> None:
    model, _ = pair(PARTS[kind].config())
    model = model.eval()
    rule = ExitRule("relative_change", 0.3)
    (pieces, their_loops), (together, loops) = decoded(model, rule), decoded(model, rule, (13,))
    assert torch.equal(their_loops, loops)
    assert loops.unique().numel() > 1
    assert relative_error(pieces, together) < 1e-5
