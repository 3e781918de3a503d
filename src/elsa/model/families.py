"""The table of supported architectures: one frozen row each, no subclass per architecture.

A row only says where things lie inside the library's own model; what they compute stays there.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from elsa.errors import UnsupportedModelError

Pooling = Literal["mean", "cls", "last"]
Stand = Literal["through", "identity", "zero"]
"""What replaces a part of the embeddings in a segment that starts from hidden states: `through`
hands on the hidden states it is given, `identity` its argument, `zero` adds nothing."""


@dataclass(frozen=True)
class Family:
    """Where the parts of one architecture lie. Paths are relative to its base model.

    Attributes:
        model_type: the `model_type` of its config.json.
        layers: path of the list of blocks.
        embeddings: modules that only the bottom holds, and what stands for each elsewhere.
        final_norm: path of the norm after the last block; empty if blocks end in their own.
        causal: a decoder, whose tokens see only what is before them.
        targets: default LoRA targets.
        head: name of the linear layer of its token classification class.
        token_classes: whether the library has a token classification class for it.
        prediction: name of a frozen module between final norm and head, if there is one.
        token_types: whether it takes segment ids for pairs of texts.
        transposed: its linear layers store [in, out] (Conv1D).
        multiplier: attribute that scales the embeddings inside the base model's forward.
    """

    model_type: str
    layers: str = "layers"
    embeddings: dict[str, Stand] = field(default_factory=lambda: {"embed_tokens": "identity"})
    final_norm: str = "norm"
    causal: bool = True
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    head: str = "score"
    token_classes: bool = True
    prediction: str = ""
    token_types: bool = False
    transposed: bool = False
    multiplier: str = ""

    @property
    def pooling(self) -> Pooling:
        """Default pooling: the mean for encoders, the last token for decoders."""
        return "last" if self.causal else "mean"


def _encoder(model_type: str, **fields: Any) -> Family:
    defaults: dict[str, Any] = {
        "layers": "encoder.layer",
        "embeddings": {"embeddings": "through"},
        "final_norm": "",
        "causal": False,
        "targets": ("query", "value"),
        "head": "classifier",
    }
    return Family(model_type, **(defaults | fields))


FAMILIES: dict[str, Family] = {
    row.model_type: row
    for row in (
        _encoder("bert", token_types=True),
        _encoder("roberta", token_types=True),
        _encoder("distilbert", layers="transformer.layer", targets=("q_lin", "v_lin")),
        _encoder(
            "electra",
            embeddings={"embeddings": "through", "embeddings_project": "identity"},
            token_types=True,
        ),
        _encoder(
            "modernbert",
            layers="layers",
            final_norm="final_norm",
            targets=("Wqkv",),
            prediction="head",
        ),
        Family(
            "gpt2",
            layers="h",
            embeddings={"wte": "identity", "wpe": "zero"},
            final_norm="ln_f",
            targets=("c_attn",),
            head="classifier",
            transposed=True,
        ),
        Family(
            "gpt_neox",
            embeddings={"embed_in": "identity"},
            final_norm="final_layer_norm",
            targets=("query_key_value",),
            head="classifier",
        ),
        Family("llama"),
        Family("mistral"),
        Family("qwen2"),
        Family("qwen3"),
        Family("gemma2"),
        Family("gemma3_text", token_classes=False),
        Family("phi3", targets=("qkv_proj",)),
        Family("granite", token_classes=False, multiplier="embedding_multiplier"),
        Family("olmo2", token_classes=False),
        Family("smollm3"),
    )
}


def family_of(config: Any) -> Family:
    """The row of a Hugging Face config.

    Raises:
        UnsupportedModelError: its `model_type` has no row.
    """
    model_type = getattr(config, "model_type", None)
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise UnsupportedModelError(
            f"model_type '{model_type}' is not supported; allowed: {', '.join(sorted(FAMILIES))}"
        )
    return family
