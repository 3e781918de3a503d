"""What a model is trained for, and with which adapters."""

from dataclasses import dataclass

from elsa.model.families import Pooling


@dataclass(frozen=True)
class Classification:
    """One label a text: a linear head on the pooled hidden states.

    The head is linear, so pooling before it equals pooling the logits that the library's token
    classification class gives each token; an exported adapter relies on that.

    Attributes:
        labels: C, number of labels.
        pooling: mean over the tokens, the first token (cls) or the last one.
        name: of the task, where devices have several; its head is then its own, under
            "head.<name>.".
    """

    labels: int
    pooling: Pooling
    name: str = ""


@dataclass(frozen=True)
class CausalLM:
    """The next token, at every token that counts.

    Attributes:
        chat: whether the texts are conversations in the model's chat template; it changes only
            what an export says about its use.
    """

    chat: bool = False


Task = Classification | CausalLM


@dataclass(frozen=True)
class LoraSpec:
    """LoRA (Hu et al., arXiv 2106.09685): W x + alpha / rank * B A x.

    Attributes:
        rank: r, rows of A and columns of B.
        alpha: numerator of the scale.
        targets: names of linear layers inside a block; empty takes the family's default.
        first: number of the first block with adapters; those before it stay frozen.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ()
    first: int = 0
