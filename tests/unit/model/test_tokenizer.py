"""Text to ids."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from elsa.errors import ModelError
from elsa.model.tokenizer import load_tokenizer

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d"]


def save(directory: Path, **special: str) -> Path:
    fast = Fast(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.pre_tokenizer = Whitespace()
    fast.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_input_names=["input_ids", "attention_mask", "token_type_ids"],
        **special,
    ).save_pretrained(directory)
    return directory


def test_single_texts_and_pairs(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save(tmp_path, pad_token="[PAD]"))
    one, two = tokenizer.encode(["a b", "c"], max_tokens=8)
    assert one.input_ids.tolist() == [1, 4, 5, 2]
    assert two.input_ids.tolist() == [1, 6, 2]
    assert one.token_types is None
    (pair,) = tokenizer.encode(["a b c d"], ["d"], max_tokens=6)
    assert pair.input_ids.tolist() == [1, 4, 5, 2, 7, 2]
    assert pair.token_types is not None
    assert pair.token_types.tolist() == [0, 0, 0, 0, 1, 1]
    assert tokenizer.encode([], max_tokens=8) == []


def test_ends_are_put_once_and_never_cut_off(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save(tmp_path, pad_token="[PAD]", eos_token="d"))
    ended = tokenizer.encode(["a", "a b c a b c"], max_tokens=5, end=True)
    assert [e.input_ids.tolist() for e in ended] == [[1, 4, 2, 7], [1, 4, 5, 6, 7]]
    tokenizer = load_tokenizer(save(tmp_path, eos_token="[SEP]"))
    assert tokenizer.encode(["a"], max_tokens=5, end=True)[0].input_ids.tolist() == [1, 4, 2]


def test_padding_falls_back(tmp_path: Path) -> None:
    assert load_tokenizer(save(tmp_path / "a", pad_token="[PAD]")).pad_id == 0
    assert load_tokenizer(save(tmp_path / "b", eos_token="[SEP]")).pad_id == 2
    none = load_tokenizer(save(tmp_path / "c"))
    assert none.pad_id == 0
    with pytest.raises(ModelError, match="no end-of-text token"):
        none.encode(["a"], max_tokens=5, end=True)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer files; expected one of tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer cannot be used"):
        load_tokenizer(tmp_path)
