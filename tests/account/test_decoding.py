from dataclasses import replace

import pytest
import torch
from helpers import MODELS, model_config, random_model

from mythos.account.decoding import decode_bytes


@pytest.mark.parametrize("policy", ["all", "last", "mean", "mod-2", "mod-9"])
@pytest.mark.parametrize("name", MODELS)
def test_cache_bytes_are_those_of_the_real_cache(name: str, policy: str) -> None:
    config = model_config(name)
    model, tokens = random_model(config), torch.zeros(3, 7, dtype=torch.long)
    cache = model.new_cache(5, 11, policy)
    model.decode(tokens, cache)
    counted = decode_bytes(config, 5, 11, policy, num_sequences=3)
    assert counted.cache == cache.num_bytes
    assert counted.core == sum(layer_cache.num_bytes for slot in cache.slots for layer_cache in slot)


def test_bf16_caches_take_half() -> None:
    config = model_config("debug")
    model = random_model(config)
    cache = model.new_cache(3, 11)
    with torch.autocast("cpu", torch.bfloat16):
        model.decode(torch.zeros(1, 11, dtype=torch.long), cache)
    assert decode_bytes(config, 3, 11, width=2).cache == cache.num_bytes


def test_states_are_the_two_input_tensors_of_a_loop() -> None:
    config = model_config("debug")
    seen: list[int] = []
    model = random_model(config)
    model.core.injection.register_forward_pre_hook(lambda _, inputs: seen.append(sum(part.nbytes for part in inputs)))
    model.decode(torch.zeros(3, 7, dtype=torch.long), model.new_cache(2, 7))
    assert seen == [decode_bytes(config, 2, 7, num_sequences=3, num_in_flight=7).states] * 2


def test_a_plain_model_of_the_same_depth_caches_as_much_as_policy_all() -> None:
    config = model_config("debug")
    deep = replace(config, num_core_layers=8 * config.num_core_layers)
    assert decode_bytes(config, 8, 100).cache == decode_bytes(deep, 1, 100).cache
