"""Conversations: what was asked and what shall be answered, for a language model to learn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elsa.errors import DataError

ASSISTANT = "assistant"
"""Role of whom the model learns to be; only these turns count."""


class Turn(NamedTuple):
    """What somebody says in a conversation: `role` is system, user, assistant or the like."""

    role: str
    content: str


Chat = tuple[Turn, ...]


def answered(prompts: Sequence[str], answers: Sequence[str]) -> tuple[Chat, ...]:
    """A conversation of two turns for each prompt and its answer."""
    return tuple(
        (Turn("user", prompt), Turn(ASSISTANT, answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    )


def read_chats(cells: Sequence[object], where: str, column: str) -> tuple[Chat, ...]:
    """Check a column of conversations, each a list of {"role": ..., "content": ...}.

    Raises:
        DataError: a cell is something else, is empty, or does not end with the assistant.
    """
    return tuple(
        _chat(cell, f"{where}: column '{column}' in row {row}") for row, cell in enumerate(cells, 1)
    )


def as_text(chat: Chat) -> str:
    """The conversation as one plain text, a line a turn."""
    return "\n".join(turn.content for turn in chat)


def _chat(cell: object, place: str) -> Chat:
    if not isinstance(cell, list | tuple | np.ndarray):
        raise DataError(
            f"{place} holds {type(cell).__name__}, and a conversation is a list of "
            '{"role": ..., "content": ...}; JSONL, Parquet and `datasets` can hold such lists, '
            "CSV cannot"
        )
    turns = []
    for number, turn in enumerate(cell, 1):
        fields = turn if isinstance(turn, Mapping) else {}
        role, content = fields.get("role"), fields.get("content")
        if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{place}: turn {number} needs 'role' and 'content', both strings and not empty"
            )
        turns.append(Turn(role, content))
    if not turns or turns[-1].role != ASSISTANT:
        last = f"ends with '{turns[-1].role}'" if turns else "is empty"
        raise DataError(
            f"{place} {last}; it must end with a turn of role '{ASSISTANT}', "
            "whose words are learned"
        )
    return tuple(turns)
