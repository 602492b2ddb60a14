import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.corpus.folder import Document
from data_pipelines.corpus.held_out import split_held_out
from mythos.config.base import ConfigError


def joined(documents: list[Document]) -> bytes:
    return "".join(document.text for document in documents).encode()


@given(texts=st.lists(st.text("aé日😀\n", min_size=1), min_size=1), num_bytes=st.integers(1, 60))
def test_both_parts_together_are_the_text(texts: list[str], num_bytes: int) -> None:
    documents = [Document(str(place), text) for place, text in enumerate(texts)]
    whole = joined(documents)
    try:
        training, held_out = split_held_out(documents, num_bytes)
    except ConfigError:
        # Only a cut inside the very first character leaves nothing to train on.
        assert num_bytes > len(whole) - len(texts[0][0].encode())
        return
    assert joined(training) + joined(held_out) == whole
    assert num_bytes <= len(joined(held_out)) <= num_bytes + 3
    assert all(document.text for document in training + held_out)


def test_a_document_under_the_cut_gives_to_both_sides() -> None:
    documents = [Document("a", "xyz"), Document("b", "uvw"), Document("c", "12")]
    training, held_out = split_held_out(documents, 3)
    assert training == [("a", "xyz"), ("b", "uv")]
    assert held_out == [("b", "w"), ("c", "12")]


def test_a_cut_between_documents_divides_none() -> None:
    documents = [Document("a", "xyz"), Document("b", "uvw")]
    assert split_held_out(documents, 3) == (documents[:1], documents[1:])


@pytest.mark.parametrize("num_bytes", [-1, 0, 6, 7])
def test_a_size_that_empties_a_side_is_refused_with_both_numbers(num_bytes: int) -> None:
    with pytest.raises(ConfigError, match=f"--held-out-bytes is {num_bytes}, but the text has 6 bytes"):
        split_held_out([Document("a", "xyz"), Document("b", "uvw")], num_bytes)


def test_a_single_character_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="--held-out-bytes is 2, and that is all 4 bytes"):
        split_held_out([Document("a", "😀")], 2)
