import torch
from helpers import model_config, random_model

from mythos.model.generate import generate, sample


def test_greedy_generation_is_repeated_argmax_of_the_full_forward() -> None:
    model = random_model(model_config("debug"))
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    result = generate(model, prompt, num_new_tokens=5, num_loops=3, temperature=0, top_k=None, seed=0)
    tokens = prompt
    for _ in range(5):
        logits = model.decode(tokens, model.new_cache(3, 16))
        tokens = torch.cat((tokens, logits[:, -1].argmax(-1, keepdim=True)), 1)
    assert torch.equal(result.tokens_BS, tokens[:, 3:])
    assert torch.equal(result.num_loops_BS, torch.full((2, 5), 3))


def test_sampling_repeats_with_its_seed_and_stays_among_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(200, 1)
    draws = [sample(logits, 1.0, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert set(draws[0].flatten().tolist()) == {2, 3}
    share = (draws[0] == 3).float().mean().item()
    assert abs(share - 1 / (1 + 2.718281828**-1)) < 0.1
