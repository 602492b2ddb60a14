import torch
from hypothesis import given
from hypothesis import strategies as st

from mythos.moe.margins import MAX_TOKENS, NUM_BINS, bin_edges, count_margins, margin_quantile


def exact_margins(selection_BSE: torch.Tensor, num_active: int) -> torch.Tensor:
    """Margins of all tokens, ``[E, N]``."""
    cutoff = selection_BSE.sort(dim=-1, descending=True).values[..., num_active : num_active + 1]
    return (cutoff - selection_BSE).flatten(0, 1).T


def test_each_margin_is_counted_in_the_bin_that_holds_it() -> None:
    selection_BSE = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0))
    counts_EQ = count_margins(selection_BSE, num_active=2)
    edges = bin_edges(NUM_BINS, torch.device("cpu"))
    for counts_Q, margins in zip(counts_EQ, exact_margins(selection_BSE, 2).double(), strict=True):
        expected = torch.histogram(margins, bins=edges).hist.to(torch.int32)
        assert counts_Q.sum() == 21
        # A margin on an edge, as the zero of the expert at the cutoff, may count on either side.
        assert (counts_Q.cumsum(0) - expected.cumsum(0)).abs().max() <= int((margins.abs() < 1e-6).sum())


def test_selected_experts_have_negative_margins() -> None:
    selection_BSE = torch.rand(2, 50, 8, generator=torch.Generator().manual_seed(1))
    counts_EQ = count_margins(selection_BSE, num_active=3)
    expert = selection_BSE.topk(3).indices.flatten()
    assert counts_EQ[:, : NUM_BINS // 2].sum(1).tolist() == torch.bincount(expert, minlength=8).tolist()


def test_a_long_sequence_is_sampled_alike_in_every_division_of_the_batch() -> None:
    selection_BSE = torch.rand(4, 3 * MAX_TOKENS - 1, 6, generator=torch.Generator().manual_seed(2))
    together = count_margins(selection_BSE, num_active=2)
    assert together.sum() == 4 * 6 * -(-(3 * MAX_TOKENS - 1) // 3)
    assert torch.equal(together, sum(count_margins(one[None], num_active=2) for one in selection_BSE))


def test_margins_beyond_the_limit_count_in_the_outermost_bins() -> None:
    counts_EQ = count_margins(torch.tensor([[[9.0, 0.0, -9.0]]]), num_active=1)
    assert counts_EQ[0, 0] == counts_EQ[2, -1] == 1


@given(
    seed=st.integers(0, 1000),
    num_experts=st.integers(3, 40),
    spread=st.sampled_from([0.01, 0.1, 0.5]),
    share=st.floats(0.05, 0.95),
)
def test_quantiles_are_those_of_the_margins_to_the_width_of_a_bin(seed, num_experts, spread, share) -> None:
    generator = torch.Generator().manual_seed(seed)
    selection_BSE = (spread * torch.randn(2, 200, num_experts, generator=generator)).sigmoid()
    found_E = margin_quantile(count_margins(selection_BSE, num_active=2), share)
    exact_E = exact_margins(selection_BSE, 2).double().quantile(share, dim=1)
    edges = bin_edges(NUM_BINS, torch.device("cpu"))
    index_E = torch.searchsorted(edges, exact_E).clamp(1, NUM_BINS)
    widths = edges.diff()
    near = torch.stack([widths[(index_E - 1 + shift).clamp(0, NUM_BINS - 1)] for shift in (-1, 0, 1)]).amax(0)
    assert ((found_E - exact_E).abs() <= 2 * near).all()


def test_an_expert_without_tokens_has_quantile_zero() -> None:
    assert margin_quantile(torch.zeros(2, 3, NUM_BINS, dtype=torch.int32), 0.5).tolist() == [[0.0] * 3] * 2
