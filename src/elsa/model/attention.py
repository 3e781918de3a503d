"""Which attention kernel a segment uses, and one that makes bfloat16 training fast on a CPU.

torch's fused attention has a backward for bfloat16 on CPUs that takes many times as long as the
one for float32 (16 texts of 12 tokens, 12 heads of 32: 32 ms against 1.4 ms; torch 2.13). So
under bfloat16 the scores are taken in float32, which is also more exact; all other products stay
in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

WIDE = "elsa_wide_sdpa"


def attention_of(config: Any, dtype: torch.dtype = torch.float32) -> str:
    """Name of the attention kernel: torch's fused one, or the plain one where it lacks something.

    Args:
        config: a Hugging Face config; one that caps attention scores by a tanh needs the plain
            kernel.
        dtype: of the frozen weights.
    """
    if getattr(config, "attn_logit_softcapping", None):
        return "eager"
    return WIDE if dtype == torch.bfloat16 else "sdpa"


def _wide(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if query.device.type != "cpu":
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return plain
    with torch.autocast("cpu", enabled=False):
        out, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **kwargs
        )
    return out.to(query.dtype), None


AttentionInterface.register(WIDE, _wide)
AttentionMaskInterface.register(WIDE, sdpa_mask)
