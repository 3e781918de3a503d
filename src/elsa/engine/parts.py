"""The model and the text of a config, opened: what devices and edges are built from."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from elsa.config.schema import Config, Data, Rows
from elsa.core.cost import Activations, ModelShape
from elsa.core.split import Split
from elsa.data.assets import cache_dir, fetch, find_asset
from elsa.data.batches import Examples
from elsa.data.catalogue import Asset
from elsa.data.sources import load_split
from elsa.data.table import Columns, Table
from elsa.errors import ConfigError
from elsa.model.accelerator import chosen, fast_dtype
from elsa.model.checkpoint import Checkpoint, open_checkpoint, resolve_model
from elsa.model.gguf import convert_gguf
from elsa.model.segments import (
    Bottom,
    Top,
    Trunk,
    build_bottom,
    build_end,
    build_top,
    build_trunk,
)
from elsa.model.sizes import activations_of, shape_of
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task
from elsa.model.tokenizer import Tokenizer
from elsa.roles.device import Segments

Say = Callable[[str], None]

_MODEL_FILES = ("*.safetensors", "config.json", "*token*.json", "vocab*", "merges.txt", "*.model")


@dataclass(frozen=True)
class Text:
    """The rows of a run: for training, laid out later, and the common test rows."""

    train: Table
    test: Table


class ModelParts:
    """A checkpoint and the segments built from it; equal splits share their segments."""

    def __init__(self, checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> None:
        self.checkpoint = checkpoint
        self.task = task
        self.lora = lora
        self.trunk = cache(self._trunk)
        self.end = cache(self._end)
        self.bottom = cache(self._bottom)
        self.segments = cache(self._segments)
        self.shape = cache(self._shape)
        self.activations = cache(self._activations)

    def with_task(self, task: Task) -> "ModelParts":
        """The same model for another task; bottom and trunk, which know of no task, are shared."""
        other = ModelParts(self.checkpoint, task, self.lora)
        other.trunk, other.bottom = self.trunk, self.bottom
        return other

    def _shape(self) -> ModelShape:
        return shape_of(self.checkpoint, self.task, self.lora)

    def _activations(self, recompute: bool) -> Activations:
        return activations_of(self.checkpoint, self.task, self.lora, recompute=recompute)

    def _trunk(self, split: Split) -> Trunk:
        return build_trunk(self.checkpoint, split, self.task, self.lora)

    def _end(self, split: Split) -> Top:
        return build_end(self.checkpoint, split, self.task, self.lora)

    def _bottom(self, split: Split) -> Bottom:
        return build_bottom(self.checkpoint, split, self.task, self.lora)

    def _segments(self, split: Split) -> Segments:
        of = (self.checkpoint, split, self.task, self.lora)
        top = None if split.head_at_edge else build_top(*of)
        return Segments(split, self.checkpoint.hidden_size, self.bottom(split), top)


def split_of(config: Config, blocks: int) -> Split:
    """The split of a config for a model of so many blocks; raises SplitError if there is none."""
    split = config.split
    return Split.of(blocks, split.bottom, split.top, split.layout)


def model_directory(path: str, say: Say) -> Path:
    """The local directory of a model: an asset's, a local one, or a hub id's.

    Raises:
        ConfigError: it names an asset that is no model.
        AssetError, ModelError: it cannot be had.
    """
    asset = find_asset(path)
    if asset is None:
        return resolve_model(path)
    if asset.kind == "table":
        raise ConfigError(f"model.path = '{path}': this asset is text; it goes into data.path")
    folder = fetch(path, say=say)
    if asset.kind == "model":
        return folder
    converted = converted_folder(asset)
    if not (converted / "config.json").is_file():
        say(f"converting {path} once, from GGUF to safetensors")
        convert_gguf(folder / asset.files[0], converted)
    return converted


def converted_folder(asset: Asset) -> Path:
    """Where a GGUF asset lies once it is a plain model directory."""
    return cache_dir() / "converted" / asset.package.folder


def load_model(config: Config, labels: int, directory: Path) -> ModelParts:
    """Open the model of a config for so many labels; reads no weights yet."""
    device = chosen(config.run.accelerator)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": fast_dtype(device)}
    embeddings = None if config.model.embeddings == "auto" else config.model.embeddings
    dtype = dtypes[config.model.precision]
    checkpoint = open_checkpoint(directory, dtype, embeddings, device)
    if config.model.max_tokens > checkpoint.max_tokens:
        raise ConfigError(
            f"model.max_tokens = {config.model.max_tokens}: {config.model.path} takes at most "
            f"{checkpoint.max_tokens}"
        )
    task: Task = CausalLM(chat=bool(config.data.answer or config.data.messages))
    if config.model.task == "classification":
        pooling = config.model.pooling
        task = Classification(labels, checkpoint.family.pooling if pooling == "auto" else pooling)
    adapter = config.adapter
    split = config.split
    firsts = {"none": 0, "bottom": split.bottom, "trunk": checkpoint.blocks - split.top}
    lora = LoraSpec(adapter.rank, adapter.alpha, adapter.targets, firsts[split.freeze])
    return ModelParts(checkpoint, task, lora)


def columns_of(config: Config, data: Rows) -> Columns:
    """The columns of the text of `data`; none of labels where the tokens are the labels."""
    if config.model.task == "causal-lm":
        columns = Columns(data.text, data.pair, "", data.group)
        if isinstance(data, Data):
            columns = replace(columns, answer=data.answer, messages=data.messages)
        return columns
    return Columns(data.text, data.pair, data.label, data.group, data.labels)


def load_text(config: Config, data: Rows, say: Say) -> Text:
    """Read the rows that `data`, a part of a config, names, test rows split off."""
    columns = columns_of(config, data)
    causal = config.model.task == "causal-lm"
    train, test = load_split(
        data.path,
        columns,
        test=data.test,
        test_fraction=data.test_fraction,
        limit=data.limit,
        seed=config.run.seed,
        say=say,
    )
    if not causal and train.label is None:
        raise ConfigError(
            f"data.path = '{data.path}' has no labels, which model.task = 'classification' needs; "
            "set data.label, or model.task = 'causal-lm'"
        )
    return Text(train, test)


def encode(table: Table, tokenizer: Tokenizer, config: Config) -> Examples:
    """The rows as token ids."""
    causal, longest = config.model.task == "causal-lm", config.model.max_tokens
    if table.chat is not None:
        chats = tokenizer.encode_chats(table.chat, max_tokens=longest)
        counted = [each.counted for each in chats if each.counted is not None]
        return Examples([each.input_ids for each in chats], counted=counted)
    encoded = tokenizer.encode(table.text, table.pair, max_tokens=longest, end=causal)
    types = [each.token_types for each in encoded]
    return Examples(
        [each.input_ids for each in encoded],
        [each for each in types if each is not None]
        if all(each is not None for each in types) and types
        else None,
        None if causal else table.label,
    )


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each weight, config and tokenizer file of a model, by file name."""
    found = {}
    for path in sorted({path for pattern in _MODEL_FILES for path in directory.glob(pattern)}):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def table_digest(table: Table) -> str:
    """SHA-256 of a table's rows, with their classes and groups."""
    digest = hashlib.sha256(repr(table.label_names).encode())
    labels = None if table.label is None else table.label.tolist()
    columns = [column or [None] * len(table) for column in (table.pair, labels, table.group)]
    for row in zip(table.text, *columns, strict=True):
        digest.update(repr(row).encode())
    for chat in table.chat or ():
        digest.update(repr([tuple(turn) for turn in chat]).encode())
    return digest.hexdigest()
