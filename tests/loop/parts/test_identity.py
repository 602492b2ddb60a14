"""New parts are the model without them, bitwise, and learn; no part mixes documents or reads later tokens."""

import pytest
import torch
from helpers import MODELS, gradients, random_batch, relative_error
from part_pairs import is_of_part, pair, trained
from torch import Tensor

from mythos.config.decoding import ExitRule
from mythos.config.parts import PARTS
from mythos.model.mythos import Mythos

every_kind = pytest.mark.parametrize("kind", PARTS)
every_identity = pytest.mark.parametrize("kind", sorted(PARTS.keys() - {"grt_gate"}))
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
def decoded(model: Mythos, rule: ExitRule | None) -> tuple[Tensor, Tensor]:
    """Logits and numbers of loops of a prompt and of single tokens after it."""
    cache = model.new_cache(6, None)
    pieces = random_batch(model.config).tokens_BS.split([6, 3, 1, 1, 2], dim=1)
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
@every_model
def test_a_part_reads_no_later_token_and_no_other_document(kind: str, name: str) -> None:
    """The second document of each window starts at token 7; changes before and after it reach no token of its start."""
    model, _ = pair(PARTS[kind].config(), name=name, initial_state="zero")
    batch = random_batch(model.config)
    ids_BS = (torch.arange(13) >= 7).long().expand(3, 13)
    positions_BS = torch.where(ids_BS == 1, torch.arange(13) - 7, torch.arange(13))
    batch = batch._replace(document_ids_BS=ids_BS, positions_BS=positions_BS)
    changed_BS = batch.tokens_BS.clone()
    changed_BS[:, [0, 3, 6, 11, 12]] += 1
    changed = batch._replace(tokens_BS=changed_BS % model.config.vocab_size)
    with torch.no_grad():
        expected, found = (model(each, 5).state_BSD for each in (batch, changed))
    assert relative_error(found[:, 7:11], expected[:, 7:11]) < 1e-6
    assert not torch.allclose(found[:, 0], expected[:, 0], rtol=1e-2)
    assert not torch.allclose(found[:, 11], expected[:, 11], rtol=1e-2)


@every_kind
def test_truncated_gradients_are_those_of_a_detached_start(kind: str) -> None:
    """The last loops alone, from the state and the carries that the first ones reached, give the same gradients."""
    model, _ = pair(PARTS[kind].config())
    batch = random_batch(model.config, num_documents=2)
    model(batch, 5, 2).state_BSD.square().sum().backward()
    expected = gradients(model)
    model.zero_grad()
    inputs = model._inputs(batch)
    state = model._start(inputs)
    for loop in range(5):
        state = model.core.step(state, inputs._replace(loop=loop))[0]
        state = state.map(Tensor.detach) if loop == 2 else state
    state.h_BSD.square().sum().backward()
    found = gradients(model)
    assert found.keys() >= expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5, msg=key)
