"""A process that imports lean has none of the compiler, learns all the same, and can get it yet.

Whether it learns the very same is what tests/deploy compares.
"""

import subprocess
import sys

HEAVY = (
    "sympy",
    "scipy",
    "torch.distributed.tensor",
    "torch._inductor",
    "torch._dynamo.convert_frame",
)
SCRIPT = f"""
import sys
from elsa.model.lean import StandIn, import_lean
import_lean()
import torch, transformers, peft, elsa.engine.deploy.device, elsa.engine.deploy.edge

config = transformers.BertConfig(
    vocab_size=32, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=8,
)
config._attn_implementation = "sdpa"
model = transformers.BertModel(config)
model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "value"]))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
out = model(torch.tensor([[1, 2, 3]])).last_hidden_state
torch.autograd.grad(out, [p for p in model.parameters() if p.requires_grad],
                    torch.ones_like(out), retain_graph=True, allow_unused=True)
out.sum().backward()
optimizer.step()
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
try:
    torch.autograd.grad(out.sum(), [model.get_input_embeddings().weight], torch.ones(3))
except RuntimeError as error:
    assert "shape" in str(error)
else:
    raise AssertionError("gradients of another shape were taken")
assert torch.distributed.is_available()

assert isinstance(sys.modules["torch._dynamo"], StandIn)
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
with TransformGetItemToIndex():
    pass
assert not isinstance(sys.modules["torch._dynamo"], StandIn)
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
from torch.fx.experimental.symbolic_shapes import ShapeEnv
assert "sympy" in sys.modules
import_lean()
"""


def test_lean_process_learns_without_the_compiler_and_gets_it_when_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
