import math

import pytest
import torch
from helpers import model_config, random_batch, random_model

from mythos.eval.perplexity import compressed_bits_per_byte, held_out_loss
from mythos.types import IGNORED


def test_losses_equal_separate_forwards_of_each_loop_count() -> None:
    model = random_model(model_config("debug"))
    batches = [random_batch(model.config, batch=2, seed=seed) for seed in (1, 2)]
    batches[0].targets_BS[0, :5] = IGNORED
    result = held_out_loss(model, batches, (3, 1))
    assert list(result.nll_nats) == [1, 3]
    assert result.num_targets == 2 * 2 * 13 - 5
    for num_loops, total in result.nll_nats.items():
        expected = sum(model(batch, num_loops).nll_XBS.double().sum().item() for batch in batches)
        assert total == pytest.approx(expected, rel=1e-6)
    bits = result.bits_per_byte(100)
    assert bits[1] == pytest.approx(result.nll_nats[1] / math.log(2) / 100)
    assert result.nats_per_token()[3] == pytest.approx(result.nll_nats[3] / 47)


def test_the_loss_of_a_uniform_model_is_the_logarithm_of_the_vocabulary() -> None:
    model = random_model(model_config("debug"))
    torch.nn.init.zeros_(model.embedding.weight)
    result = held_out_loss(model, [random_batch(model.config)], (1,))
    assert result.nats_per_token()[1] == pytest.approx(math.log(model.config.vocab_size), rel=1e-5)


def test_compressors_need_little_for_repetition_and_all_for_noise() -> None:
    repeated = compressed_bits_per_byte(b"abcd" * 10_000)
    noise = compressed_bits_per_byte(torch.randint(256, (20_000,), dtype=torch.uint8).numpy().tobytes())
    assert all(bits < 0.1 for bits in repeated.values())
    assert all(8 <= bits < 8.1 for bits in noise.values())
