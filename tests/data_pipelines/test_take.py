"""Tokenizers of other models: their tokens, special tokens, separators and chat templates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from data_pipelines.cli import main
from mythos.data.kept import keep_tokenizer
from mythos.data.manifest import read_manifest
from mythos.data.shards import open_split
from mythos.data.tokenizer import load_tokenizer, open_documents, text_of
from mythos.data.verification import verify

SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = "the king speaks of night <|eot|> and 123 mornings\n\n  é so\n he said:\n\n"


def train(tokenizer: Tokenizer, special_tokens: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special_tokens, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT * 20], trainer)
    return tokenizer


def gpt2() -> tuple[Tokenizer, str]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return train(tokenizer, ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"


def qwen() -> tuple[Tokenizer, str]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = train(tokenizer, [], pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|bot|>", "<|eot|>")])
    templates = {"single": "<|bot|> $A", "pair": "<|bot|> $A $B"}
    tokenizer.post_processor = processors.TemplateProcessing(
        **templates, special_tokens=[("<|bot|>", tokenizer.token_to_id("<|bot|>"))]
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer, "<|eot|>"


def llama() -> tuple[Tokenizer, str]:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    replace, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = train(tokenizer, special, [])
    return tokenizer, "</s>"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "text" / name).write_text((TEXT * 300)[:-2])  # many times longer than a piece
    return tmp_path / "text"


def pack(text: Path, tokenizer: Path, *options: str) -> int:
    held_out = (text / "b.txt").stat().st_size
    common = ["--text", text, "--to", text.parent / "packed", "--held-out-bytes", held_out, "--workers", "1"]
    return main([str(part) for part in ["pack", *common, "--tokenizer", tokenizer, *options]])


@pytest.mark.parametrize("make", [gpt2, qwen, llama])
def test_documents_have_the_tokens_of_the_other_tokenizer(
    make: Callable[[], tuple[Tokenizer, str]], text: Path, tmp_path: Path
) -> None:
    tokenizer, separator = make()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    options = [] if separator == "<|endoftext|>" else ["--separator", separator]
    assert pack(text, tmp_path / "tokenizer.json", *options) == 0
    assert (tmp_path / "packed" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    manifest = read_manifest(tmp_path / "packed")
    assert manifest.separator_id == tokenizer.token_to_id(separator)
    assert manifest.vocab_size == tokenizer.get_vocab_size()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    expected = tokenizer.encode((text / "a.txt").read_text(), add_special_tokens=False).ids
    (shard,) = open_split(tmp_path / "packed", "train")
    assert shard.tokens_N.tolist() == [manifest.separator_id, *expected]
    assert verify(tmp_path / "packed") == []
    assert text_of(tmp_path / "packed", "train") == (text / "a.txt").read_bytes()
    opened = open_documents(load_tokenizer(tmp_path / "packed"), manifest.separator_id)
    assert opened.encode("the king").ids[0] == manifest.separator_id
    assert opened.encode("the king").ids[1:] == tokenizer.encode("the king", add_special_tokens=False).ids


def test_a_tokenizer_without_the_separator_is_refused_and_nothing_is_written(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokenizer.json"
    qwen()[0].save(str(path))
    assert pack(text, path) == 2
    names = "one of its special tokens (<|bot|>, <|eot|>)"
    assert capsys.readouterr().err == (
        f"mythos-data: {path} has no token <|endoftext|>; name {names} with --separator, or train another with "
        "mythos-data tokenizer.\n"
    )
    assert not (tmp_path / "packed").exists()


def test_special_tokens_of_the_settings_are_declared_and_the_chat_template_is_kept(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = gpt2()[0]
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = {"eos_token": {"content": "Ġking"}}
    settings = eos | {"bos_token": "<|endoftext|>", "pad_token": None, "chat_template": "{{ x }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert pack(text, folder) == 0
    packed = load_tokenizer(tmp_path / "packed")
    declared = {token.content for token in packed.get_added_tokens_decoder().values() if token.special}
    assert declared == {"<|endoftext|>", "Ġking"}
    assert packed.get_vocab() == tokenizer.get_vocab()
    assert (tmp_path / "packed" / "chat_template.jinja").read_text() == "{{ x }}"
    keep_tokenizer(tmp_path / "run", [str(tmp_path / "packed")], "abc")
    assert (tmp_path / "run" / "chat_template.jinja").read_text() == "{{ x }}"


def test_the_files_of_gpt2_become_a_tokenizer(text: Path, tmp_path: Path) -> None:
    tokenizer = gpt2()[0]
    tokenizer.model.save(str(tmp_path))
    assert pack(text, tmp_path) == 0
    assert text_of(tmp_path / "packed", "train") == (text / "a.txt").read_bytes()
    assert load_tokenizer(tmp_path / "packed").get_vocab() == tokenizer.get_vocab()


def test_another_tokenizer_is_replaced_only_with_overwrite(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, make in (("a.json", gpt2), ("b.json", qwen)):
        make()[0].save(str(tmp_path / name))
    assert pack(text, tmp_path / "a.json") == 0
    assert pack(text, tmp_path / "a.json") == 0
    assert pack(text, tmp_path / "b.json", "--separator", "<|eot|>") == 2
    assert "tokenizer.json is another one than " in capsys.readouterr().err
    assert verify(tmp_path / "packed") == []
    assert pack(text, tmp_path / "b.json", "--separator", "<|eot|>", "--overwrite") == 0
    assert pack(text, tmp_path / "b.json", "--separator", "<|bot|>") == 2
    assert "holds another dataset" in capsys.readouterr().err
