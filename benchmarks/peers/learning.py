"""What a client of either peer does with the model: transformers and PEFT as people use them.

Runs in the peers' environments and knows nothing of elsa: it reads the folder that `job.py` wrote.
One model a process, loaded once and kept; a round installs adapters in it. As in elsa's runs:
mean pooling, no dropout, AdamW anew in every round, batches padded to their longest row.

Shapes: B rows of a batch, S tokens of its longest.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForTokenClassification

Adapters = dict[str, Tensor]


class Learner:
    """The model with adapters, and the rows of the devices."""

    def __init__(self, folder: Path, precision: str) -> None:
        """Load the model; `precision` is float32, or bfloat16 under autocast."""
        torch.set_num_threads(1)
        self.folder = folder
        self.job: dict[str, Any] = read(folder / "job.json")
        self._narrow = precision == "bfloat16"
        whole = AutoModelForTokenClassification.from_pretrained(
            self.job["model"], num_labels=self.job["labels"], local_files_only=True
        )
        alpha = self.job["alpha"]
        config = LoraConfig(
            task_type="TOKEN_CLS",
            r=self.job["rank"],
            lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
            target_modules=self.job["targets"],
            lora_dropout=0.0,
        )
        self._model = get_peft_model(whole, config).eval()

    def train(self, adapters: Adapters, device: int, round_: int) -> tuple[Adapters, int, float]:
        """A device's local steps of a round: what it learned, its rows, its mean loss."""
        set_peft_model_state_dict(self._model, adapters)
        data, steps = rows_of(self.folder / f"device-{device}.json"), self.job["steps"]
        optimizer = torch.optim.AdamW(
            [it for it in self._model.parameters() if it.requires_grad],
            lr=self.job["learning_rate"],
            weight_decay=self.job["weight_decay"],
            fused=True,
        )
        losses, seen = 0.0, 0
        for rows in data["batches"][round_ * steps : (round_ + 1) * steps]:
            logits, labels = self._logits(data, rows)
            loss = functional.cross_entropy(logits, labels)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses += float(loss.detach()) * len(rows)
            seen += len(rows)
        return self.adapters(), len(data["labels"]), losses / seen

    @torch.no_grad()
    def evaluate(self, adapters: Adapters) -> tuple[float, float]:
        """Accuracy and mean loss on the common test rows."""
        set_peft_model_state_dict(self._model, adapters)
        data = rows_of(self.folder / "test.json")
        right, losses = 0, 0.0
        for rows in data["batches"]:
            logits, labels = self._logits(data, rows)
            right += int((logits.argmax(-1) == labels).sum())
            losses += float(functional.cross_entropy(logits, labels, reduction="sum"))
        return right / len(data["labels"]), losses / len(data["labels"])

    def adapters(self) -> Adapters:
        """The adapters as they are, a copy."""
        state = get_peft_model_state_dict(self._model)
        return {name: value.detach().clone() for name, value in state.items()}

    def _logits(self, data: dict[str, Any], rows: list[int]) -> tuple[Tensor, Tensor]:
        """Scores [B, labels] of the mean token, and labels [B]."""
        texts = [data["input_ids"][row] for row in rows]
        longest = max(map(len, texts))
        pad = self.job["pad_id"]
        ids = torch.tensor([text + [pad] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._narrow):
            scores = self._model(input_ids=ids, attention_mask=mask).logits.float()
        weights = mask / mask.sum(1, keepdim=True)
        pooled = (scores * weights[:, :, None]).sum(1)
        return pooled, torch.tensor([data["labels"][row] for row in rows])


@cache
def learner_of(folder: Path, precision: str) -> Learner:
    """The one learner of this process."""
    return Learner(folder, precision)


def initial(folder: Path) -> Adapters:
    """The adapters that everybody starts from."""
    adapters: Adapters = load_file(folder / "initial.safetensors")
    return adapters


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


rows_of = cache(read)
"""The same, kept."""
