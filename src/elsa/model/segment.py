"""A segment: some consecutive blocks of a model, as a smaller model of the same class.

The backbone is frozen and its dropout off. The trainable tensors, LoRA adapters and the head of
classification, are not kept here: `bind` installs a device's own before a forward, so that any
number of devices share one backbone.

Shapes: B sequences, S tokens, D hidden size, C labels, V vocabulary. Sequences are padded on the
right; `mask` [B, S] (int64) is 1 on tokens, or None if there is no padding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from elsa.errors import AdapterError, ModelError
from elsa.model import adapters
from elsa.model.checkpoint import Checkpoint
from elsa.model.skeleton import BUILDING, build_skeleton, frozen_slots, keep_blocks, output_name
from elsa.model.tables import Store, Table, TableEmbedding, TableOutput
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task


class Segment(nn.Module):
    """Some consecutive blocks of a model, with what belongs before and after them.

    Attributes:
        blocks: global numbers of its blocks.
        adapter_names: global names of its trainable tensors, in canonical order.
        adapter_shapes: their shapes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        lora: LoraSpec,
        blocks: range,
        *,
        first: bool,
        last: bool,
        load: bool = True,
    ) -> None:
        """Build it, reading only its own tensors.

        Args:
            checkpoint: where config and tensors come from.
            task: what the model is for.
            lora: its adapters.
            blocks: global numbers of its blocks.
            first: whether it holds the embeddings.
            last: whether it holds the final norm and the head.
            load: whether to read the tensors; without, it has names and shapes only.

        Raises:
            MissingTensorError: a tensor is absent or of another shape.
            ModelError: the task does not fit the architecture.
            AdapterError: a LoRA target is in none of the blocks.
        """
        super().__init__()
        with BUILDING:
            family = checkpoint.family
            model = build_skeleton(checkpoint, task)
            base = model.base_model
            keep_blocks(base, family, blocks, first=first, last=last)
            self.blocks = blocks
            self.checkpoint = checkpoint
            self.task = task
            self.lora = lora
            self.model: Any = model if last and isinstance(task, CausalLM) else base
            self.prediction: Any = None
            self.head: Any = None
            if last and isinstance(task, Classification):
                self.prediction = getattr(model, family.prediction) if family.prediction else None
                self.head = getattr(model, family.head, None)
                if self.head is None:
                    self.head = nn.Linear(checkpoint.hidden_size, task.labels, device="meta")
            self._prefix = "" if base is model else f"{model.base_model_prefix}."
            self._causal = family.causal and not getattr(
                checkpoint.config, "use_bidirectional_attention", False
            )
            self._tables: dict[str, Table] = {}
            if load:
                if checkpoint.embeddings:
                    self._use_tables(checkpoint.embeddings, first=first)
                slots = list(self._frozen_slots())
                read = checkpoint.weights.read(
                    {name: module._parameters[leaf].shape for name, module, leaf in slots}  # type: ignore[union-attr]
                )
                for name, module, leaf in slots:
                    module._parameters[leaf] = nn.Parameter(read[name], requires_grad=False)
            adapters.inject(self._layers(), blocks.start, family, lora)
            self._settle()
            self._collect()

    @property
    def device(self) -> torch.device:
        """What it computes on; what it is given may lie anywhere, what it gives lies there."""
        return self.checkpoint.device

    def bind(self, adapter: Mapping[str, Tensor]) -> None:
        """Install a device's own tensors; names of other segments are ignored.

        Without a copy, where they lie on what the segment computes on.

        A device may have LoRA factors of a rank of its own: the scale stays that of `lora`.

        The autograd graph of an earlier forward stays valid: it holds the tensors themselves.

        Raises:
            AdapterError: one is missing or has another shape; what was bound before stays.
        """
        chosen = []
        for name, shape in self.adapter_shapes.items():
            tensor = adapter.get(name)
            if tensor is None:
                raise AdapterError(
                    f"adapter tensor '{name}' is missing; this segment, {self._span()}, needs "
                    f"{len(self.adapter_shapes)} tensors"
                )
            if tensor.shape != shape and not adapters.other_rank(name, adapter, shape):
                raise AdapterError(
                    f"adapter tensor '{name}' has shape {list(tensor.shape)}, "
                    f"expected {list(shape)}"
                )
            chosen.append(tensor.to(self.device))
        for tensor, (parameters, leaf) in zip(chosen, self._slots, strict=True):
            parameters[leaf] = tensor  # type: ignore[assignment]  # any tensor will do
        self._bound = True

    @contextmanager
    def recomputing(self, adapter: Mapping[str, Tensor]) -> Iterator[None]:
        """Forward passes in here keep what each block is given, and nothing of what is in it.

        A block runs again when its backward pass comes (Chen et al. 2016, arXiv 1604.06174), with
        this `adapter`, whatever was bound in between. Gradients are the same to the bit.
        """
        layers = list(self._layers())
        for layer in layers:
            layer.forward = partial(self._again, layer.forward, adapter)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _again(
        self, block: Callable[..., Any], adapter: Mapping[str, Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        from torch.utils.checkpoint import checkpoint  # devices start lean

        def run(*given: Any, **named: Any) -> Any:
            self.bind(adapter)
            return block(*given, **named)

        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def frozen(self) -> dict[str, Tensor]:
        """The frozen tensors it holds, by their names in the model's files.

        A matrix in int8 is there with its scales, under its name and ".scales".
        """
        held: dict[str, Tensor] = {
            name: tensor
            for name, module, leaf in self._frozen_slots()
            if (tensor := module._parameters[leaf]) is not None
        }
        for name, table in self._tables.items():
            held[name] = table.values
            if table.scales is not None:
                held[f"{name}.scales"] = table.scales
        return held

    def train(self, mode: bool = True) -> "Segment":  # noqa: ARG002
        """Nothing to switch: the backbone is frozen and without dropout, in training too."""
        return self

    def _layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.base_model.get_submodule(self.checkpoint.family.layers)
        return layers

    def _span(self) -> str:
        return f"blocks [{self.blocks.start}, {self.blocks.stop})"

    def _frozen_slots(self) -> Iterator[tuple[str, nn.Module, str]]:
        family, base = self.checkpoint.family, self.model.base_model
        for name, module, leaf in frozen_slots(base, family, self.blocks.start):
            if ".lora_" not in name:
                yield name.replace(".base_layer.", "."), module, leaf
        if self.prediction is not None:
            for path, module in self.prediction.named_modules():
                for leaf, parameter in module._parameters.items():
                    if parameter is not None:
                        yield f"{family.prediction}.{path}.{leaf}", module, leaf
        if self.model is not base and not isinstance(self.model.lm_head, TableOutput):
            yield output_name(self.model), self.model.lm_head, "weight"

    def _use_tables(self, store: Store, *, first: bool) -> None:
        """Hold the embedding and the output matrix, where they are here, in few bits."""
        checkpoint, base = self.checkpoint, self.model.base_model
        if first:
            module = base.get_input_embeddings()
            if type(module) is not nn.Embedding:
                raise ModelError(
                    f"model.embeddings = '{store}': '{checkpoint.family.model_type}' does more in "
                    f"its embeddings ({type(module).__name__}) than look rows up; allowed: 'auto'"
                )
            name = next(path for path, it in base.named_modules() if it is module) + ".weight"
            table = checkpoint.weights.table(name, module.weight.shape, store)
            base.set_input_embeddings(TableEmbedding(table, checkpoint.dtype))
            self._tables[name] = table
        if self.model is not base:
            name, matrix = output_name(self.model), self.model.lm_head.weight
            table = checkpoint.weights.table(name, matrix.shape, store)
            self.model.lm_head = TableOutput(table, checkpoint.dtype)
            self._tables[name] = table

    def _settle(self) -> None:
        """Put what the library computed while the model was built where the segment computes."""
        for module in self.modules():
            for leaf, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[leaf] = buffer.to(self.device)

    def _collect(self) -> None:
        """List the trainable slots, in canonical order."""
        family = self.checkpoint.family
        path = f"{self._prefix}{family.layers}"
        slots = {
            name: (module, leaf)
            for name, module, leaf in adapters.lora_slots(self._layers(), path, self.blocks.start)
        }
        if self.head is not None:
            assert isinstance(self.task, Classification)
            own = adapters.head_path(family, self.task.name)
            for leaf, parameter in self.head._parameters.items():
                if parameter is not None:
                    slots[f"{own}{leaf}"] = (self.head, leaf)
        self.adapter_names = tuple(adapters.in_order(list(slots)))
        self.adapter_shapes = {}
        self._slots = []
        for name in self.adapter_names:
            module, leaf = slots[name]
            self.adapter_shapes[name] = module._parameters[leaf].shape  # type: ignore[union-attr]
            self._slots.append((module._parameters, leaf))
        self._bound = False

    def _precision(self) -> AbstractContextManager[object]:
        if self.checkpoint.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.checkpoint.dtype)

    def _ready(self) -> None:
        if not self._bound and self._slots:
            raise AdapterError(f"bind adapters before the first forward of {self._span()}")

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        # Padding is on the right, so under a causal mask no token sees any: the kernel's own
        # causal path does, without a mask in memory.
        return None if self._causal or mask is None else mask.to(self.device)

    def _embed(
        self, input_ids: Tensor, mask: Tensor | None, token_types: Tensor | None
    ) -> dict[str, Any]:
        input_ids = input_ids.to(self.device)
        if self.checkpoint.family.causal:
            embeddings = self.model.base_model.get_input_embeddings()
            return {"inputs_embeds": embeddings(input_ids), "attention_mask": self._mask(mask)}
        extra = (
            {"token_type_ids": token_types.to(self.device)}
            if token_types is not None and self.checkpoint.family.token_types
            else {}
        )
        return {"input_ids": input_ids, "attention_mask": self._mask(mask)} | extra
