import os

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mythos.data.text import encodable, encodable_values, printable_name
from mythos.data.tokenizer import token_ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é😀\ufeff", "é😀\ufeff"),
        ("a\ud83db", "a\ufffdb"),
        ("\ud83d", "\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ufeff\udce9", "\ufeff\ufffd"),
    ],
)
def test_lone_surrogates_are_replaced_and_pairs_joined(text: str, expected: str) -> None:
    assert encodable(text) == expected


def test_keys_and_nested_values_are_made_encodable() -> None:
    value = {"\ud83d": ["x\ud83d", 1, None, {"a": ("\ud83d",)}]}
    assert encodable_values(value) == {"\ufffd": ["x\ufffd", 1, None, {"a": ["\ufffd"]}]}


def test_names_that_differ_in_a_byte_stay_different() -> None:
    assert printable_name(os.fsdecode(b"caf\xe9 \xc3\xa9.txt")) == "caf\\xe9 é.txt"
    assert printable_name("\ud83d.txt") == "\ufffd.txt"


def test_a_prompt_with_a_lone_surrogate_is_encoded() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "\ufffd": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert token_ids(tokenizer, "a \udce9 a") == [0, 1, 0]
