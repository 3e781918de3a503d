"""A model directory, opened: its config, its family and its tensors, none of them read yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from elsa.errors import ModelError
from elsa.model.accelerator import CPU
from elsa.model.families import Family, family_of
from elsa.model.tables import Store
from elsa.model.weights import Weights

DESCRIPTION = "config.json"
"""The file that says what a model is, without any of its weights."""
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class Checkpoint:
    """A model directory that segments are built from.

    Attributes:
        directory: where it lies.
        config: its Hugging Face config.
        family: its row in the table of families.
        weights: its tensors, read when first needed and shared between segments.
        dtype: of the frozen weights; bfloat16 makes segments compute under autocast.
        embeddings: what the embedding and output matrices are held in; None as the rest.
        device: where the tensors lie, and segments compute.
    """

    directory: Path
    config: Any
    family: Family
    weights: Weights
    dtype: torch.dtype
    embeddings: Store | None = None
    device: torch.device = CPU

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.config.hidden_size)

    @property
    def blocks(self) -> int:
        """M."""
        return int(self.config.num_hidden_layers)

    @property
    def vocabulary(self) -> int:
        """V, rows of the embedding matrix."""
        return int(self.config.vocab_size)

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text it can take."""
        longest = int(self.config.max_position_embeddings)
        if self.family.model_type == "roberta":  # positions count from the padding index + 1
            longest -= int(self.config.pad_token_id) + 1
        return longest


def open_checkpoint(
    directory: str | Path,
    dtype: torch.dtype | None = None,
    embeddings: Store | None = None,
    device: torch.device = CPU,
) -> Checkpoint:
    """Open a local model directory; reads config.json and the headers of the weight files.

    Args:
        directory: a Hugging Face model directory with safetensors weights.
        dtype: of the frozen weights in memory; None takes float32, bfloat16 also computes in it.
        embeddings: what embedding and output matrices are held in; None takes `dtype`.
        device: where they lie, and segments compute.

    Raises:
        ModelError: the directory, its config or its weights cannot be used.
        UnsupportedModelError: the architecture has no row in the table of families.
    """
    directory = Path(directory)
    config = read_description(directory)
    family = family_of(config)
    held = dtype or torch.float32
    weights = Weights(directory, _prefix(config), held, device)
    return Checkpoint(directory, config, family, weights, held, embeddings, device)


def read_description(directory: Path) -> Any:
    """The Hugging Face config of a model directory.

    Raises:
        ModelError: there is no config.json, or it cannot be used.
    """
    if not (directory / DESCRIPTION).is_file():
        raise ModelError(f"{directory}: no {DESCRIPTION}; expected a Hugging Face model directory")
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{directory / DESCRIPTION}: cannot be used ({reason})") from error


def resolve_model(path: str | Path, wanted: Sequence[str] = _WANTED) -> Path:
    """The local directory of a model: itself if it is one, else the files of a hub id.

    Args:
        path: a directory or a hub id.
        wanted: patterns of the files to fetch.

    Raises:
        ModelError: it is neither a directory nor a hub id that can be fetched.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    # Imported late: only a hub id needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(wanted)))
    except HFValidationError as error:
        raise ModelError(f"model.path = '{path}': no such directory, and no hub id") from error
    except Exception as error:  # the hub client raises its own, its transport's and OS errors
        raise ModelError(
            f"model.path = '{path}': no such directory, and the hub did not give it "
            f"({type(error).__name__}); allowed: an asset's name, a local directory, or the id "
            "of a model that this machine can download or has in its cache"
        ) from error


def _prefix(config: Any) -> str:
    from transformers import AutoModel

    return str(AutoModel._model_mapping[type(config)].base_model_prefix)
