"""Text to token ids, by the model's own tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from elsa.errors import ModelError

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


@dataclass(frozen=True)
class Encoding:
    """One text.

    Attributes:
        input_ids: token ids [S].
        token_types: segment ids [S], 0 for the first text of a pair and 1 for the second; None
            for a single text, or if the model does not tell them apart.
    """

    input_ids: NDArray[np.int32]
    token_types: NDArray[np.int32] | None = None


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        pad_id: id that fills a batch up on the right; its embedding never matters.
        eos_id: id that ends a text, if the model has one.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a Hugging Face tokenizer."""
        self._tokenizer = tokenizer
        self.eos_id: int | None = tokenizer.eos_token_id
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else self.eos_id or 0

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_tokens: int,
        end: bool = False,
    ) -> list[Encoding]:
        """Encode many texts, or pairs of texts, at once; without padding.

        Args:
            texts: first texts.
            pairs: second texts, as many.
            max_tokens: longest encoding; of a pair the longer text is cut first.
            end: whether each shall end with `eos_id`, as a causal LM learns where to stop.

        Raises:
            ModelError: `end` is asked for and the tokenizer has no end-of-text token.
        """
        if not texts:
            return []
        if end and self.eos_id is None:
            raise ModelError(
                "the tokenizer has no end-of-text token, which model.task = 'causal-lm' needs; "
                "set eos_token in tokenizer_config.json"
            )
        batch = self._tokenizer(
            list(texts),
            list(pairs) if pairs is not None else None,
            truncation="longest_first",
            max_length=max_tokens,
            padding=False,
            return_attention_mask=False,
        )
        types = batch.get("token_type_ids") if pairs is not None else None
        return [
            Encoding(
                self._ended(ids, max_tokens) if end else np.asarray(ids, dtype=np.int32),
                np.asarray(types[row], dtype=np.int32) if types is not None else None,
            )
            for row, ids in enumerate(batch["input_ids"])
        ]

    def save(self, directory: Path) -> None:
        """Write its files into a model directory."""
        self._tokenizer.save_pretrained(directory)

    def _ended(self, ids: list[int], max_tokens: int) -> NDArray[np.int32]:
        body = ids if not ids or ids[-1] != self.eos_id else ids[:-1]
        return np.asarray([*body[: max_tokens - 1], self.eos_id], dtype=np.int32)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer of a model directory.

    Raises:
        ModelError: its files are missing or cannot be used.
    """
    directory = Path(directory)
    if not any((directory / name).is_file() for name in _FILES):
        raise ModelError(
            f"{directory}: no tokenizer files; expected one of {', '.join(_FILES)} beside "
            "config.json, as save_pretrained of the model's tokenizer writes them"
        )
    try:
        return Tokenizer(AutoTokenizer.from_pretrained(directory, local_files_only=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{directory}: tokenizer cannot be used ({reason})") from error
