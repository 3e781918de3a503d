"""Text to ids."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Fast
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from elsa.errors import DataError, ModelError
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


TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ 'a ' if m['role'] == 'user' else 'b ' }}{{ m['content'] }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}b {% endif %}"
)


def chatting(directory: Path, template: str = TEMPLATE) -> Path:
    save(directory, pad_token="[PAD]", eos_token="[SEP]")
    (directory / "chat_template.jinja").write_text(template)
    return directory


def test_only_what_the_assistant_says_counts(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(chatting(tmp_path))
    short = [("user", "c d"), ("assistant", "d")]
    long = [("user", "c"), ("assistant", "d"), ("user", "d"), ("assistant", "c c")]
    one, two = tokenizer.encode_chats([short, long], max_tokens=32)
    # a c d . b d .    with . for [SEP], the end of a turn, which is learned too
    assert one.input_ids.tolist() == [4, 6, 7, 2, 5, 7, 2]
    assert one.counted is not None
    assert one.counted.tolist() == [False] * 5 + [True] * 2
    assert two.input_ids.tolist() == [4, 6, 2, 5, 7, 2, 4, 7, 2, 5, 6, 6, 2]
    assert two.counted is not None
    assert np.flatnonzero(two.counted).tolist() == [4, 5, 10, 11, 12]
    (cut,) = tokenizer.encode_chats([short], max_tokens=6)
    assert cut.input_ids.tolist() == [4, 6, 7, 2, 5, 7]
    assert cut.counted is not None
    assert cut.counted.tolist() == [False] * 5 + [True]
    assert tokenizer.encode_chats([], max_tokens=4) == []


def test_chats_that_cannot_be_learned_say_why(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(chatting(tmp_path / "a"))
    short, long = ([("user", words), ("assistant", "d")] for words in ("c", "c c c c c c"))
    with pytest.raises(DataError, match=r"1 of 2 conv.*= 8, first number 2.*up to 9 tokens; set"):
        tokenizer.encode_chats([short, long], max_tokens=8)
    with pytest.raises(DataError, match=r"conversation 1 .*roles tool.*no tools"):
        tokenizer.encode_chats([[("tool", "c"), ("assistant", "d")]], max_tokens=8)
    with pytest.raises(ModelError, match=r"no chat template, which data\.answer.*chat_template"):
        load_tokenizer(save(tmp_path / "b")).encode_chats([short], max_tokens=8)
    odd = TEMPLATE.replace("else 'b '", "else 'c '")
    with pytest.raises(DataError, match=r"writes turn 2 otherwise than it asks for it"):
        load_tokenizer(chatting(tmp_path / "c", odd)).encode_chats([short], max_tokens=8)
