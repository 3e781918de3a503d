"""Text to token ids, by the model's own tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from elsa.errors import DataError, ModelError

ASSISTANT = "assistant"
"""Role whose turns are learned."""
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


@dataclass(frozen=True)
class Encoding:
    """One text.

    Attributes:
        input_ids: token ids [S].
        token_types: segment ids [S], 0 for the first text of a pair and 1 for the second; None
            for a single text, or if the model does not tell them apart.
        counted: [S] bool, which tokens are an answer to be learned; None if all are.
    """

    input_ids: NDArray[np.int32]
    token_types: NDArray[np.int32] | None = None
    counted: NDArray[np.bool_] | None = None


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

    def encode_chats(
        self, chats: Sequence[Sequence[tuple[str, str]]], *, max_tokens: int
    ) -> list[Encoding]:
        """Encode conversations by the model's own chat template; without padding.

        Counted is what the assistant says, with the token that ends its turn; what follows its
        last turn is left out, as nobody would generate it.

        Args:
            chats: turns, each a role and a content, ending with one of `ASSISTANT`.
            max_tokens: longest encoding; longer ones lose the end of their last answer.

        Raises:
            ModelError: the tokenizer has no chat template, or cannot say where a token comes from.
            DataError: the template refuses a conversation, or nothing of its answers is left.
        """
        if not chats:
            return []
        if not getattr(self._tokenizer, "chat_template", None):
            raise ModelError(
                "the tokenizer has no chat template, which data.answer and data.messages need: "
                "take an instruction-tuned model, put its chat_template.jinja beside its "
                "tokenizer files, or train on plain text (data.answer and data.messages empty)"
            )
        if not self._tokenizer.is_fast:
            raise ModelError(
                "the tokenizer does not say which characters a token stands for, which data.answer "
                "and data.messages need: save it again with a tokenizer.json (a fast tokenizer)"
            )
        shown = [self._shown(chat, row) for row, chat in enumerate(chats, 1)]
        batch = self._tokenizer(
            [text for text, _ in shown],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        encodings, longest, lost = [], 0, []
        for row, (_, spans) in enumerate(shown):
            starts = np.array([start for start, _ in batch["offset_mapping"][row]])
            counted = np.zeros(len(starts), np.bool_)
            for first, last in spans:
                counted |= (starts >= first) & (starts < last)
            encodings.append(
                Encoding(
                    np.asarray(batch["input_ids"][row][:max_tokens], dtype=np.int32),
                    counted=counted[:max_tokens],
                )
            )
            if not counted[1:max_tokens].any():
                lost.append(row + 1)
                longest = max(longest, int(np.argmax(counted)))
        if lost:
            raise DataError(
                f"{len(lost)} of {len(chats)} conversations have no token of an answer within "
                f"model.max_tokens = {max_tokens}, first number {lost[0]} (counting from 1): what "
                f"stands before the answer takes up to {longest} tokens; set model.max_tokens "
                "above that, or shorten the prompts"
            )
        return encodings

    def _shown(
        self, chat: Sequence[tuple[str, str]], row: int
    ) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as the model reads it, and where in it the assistant speaks."""
        turns = [{"role": role, "content": content} for role, content in chat]
        text, spans = "", []
        for number, (role, _) in enumerate(chat):
            if role != ASSISTANT:
                continue
            asked = self._render(turns[:number], row, prompt=True)
            text = self._render(turns[: number + 1], row, prompt=False).rstrip()
            if not text.startswith(asked):
                raise DataError(
                    f"conversation {row} (counting from 1): the chat template writes turn "
                    f"{number + 1} otherwise than it asks for it, so that the answer cannot be "
                    "told from the prompt; give one prompt and one answer a row, or another model"
                )
            spans.append((len(asked), len(text)))
        return text, spans

    def _render(self, turns: list[dict[str, str]], row: int, *, prompt: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # a template can raise whatever it likes
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(
                f"conversation {row} (counting from 1): the model's chat template refuses turns of "
                f"the roles {roles or '(none)'} ({reason}); change the conversation"
            ) from error
        return text

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
