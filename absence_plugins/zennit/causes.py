"""Why relevance was lost: what a model computes outside the modules that have a rule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from zennit.core import Hook

from absence_plugins.core.hooks import quiet_forward

CONSTANT = (
    "arithmetic with a constant in a forward, such as a normalization, which hooks cannot see: do it before the model, or "
    "in a module of its own with layer_map=[(ThatModule, AbsencePass())]"
)
ARITHMETIC = set(
    [
        "add",
        "sub",
        "mul",
        "div",
        "__add__",
        "__radd__",
        "__iadd__",
        "__sub__",
        "__rsub__",
        "__mul__",
        "__rmul__",
        "__imul__",
        "__truediv__",
        "__isub__",
        "__itruediv__",
    ]
)

# By what a function is called (without in-place underscore): what to do about it.
REMEDIES = {
    "relu, pooling or another nonlinearity called as a function; hooks see modules only: use nn.ReLU, nn.MaxPool2d, ... in __init__ (of a module that works on every value alone and has no rule: layer_map=[(nn.Mish, AbsencePass())])": (
        "relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardtanh hardsigmoid softplus sigmoid tanh prelu threshold clamp "
        "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean amax amin max min median logsumexp adaptive_max_pool3d "
        "neg negative __neg__ square pow __pow__ abs __abs__ where sqrt rsqrt exp log sin cos maximum minimum"
    ),
    "a sum of two branches outside a module: add the canonizer (ResNetCanonizer for torchvision's ResNets), or use zennit.layer.Sum": (
        "add __add__ __iadd__ __radd__ sub __sub__ sum"
    ),
    "a product of two activations (gating, attention): there is no rule for it": "mul __mul__ __imul__ bmm matmul __matmul__ einsum baddbmm",
    "a softmax: explain the logits in front of it, or drop it": "softmax log_softmax",
    "attention: there is no rule for it": "scaled_dot_product_attention multi_head_attention_forward",
    "a normalization whose scale depends on the input: there is no rule for it": (
        "layer_norm group_norm instance_norm local_response_norm normalize rms_norm __truediv__ div"
    ),
    "a layer called as a function: use its module": "linear conv1d conv2d conv3d conv_transpose2d batch_norm embedding",
    "an interpolation, which has no rule": "interpolate upsample grid_sample",
}
ADVICE = {name: remedy for remedy, names in REMEDIES.items() for name in names.split()}
TRAILING = "Explain such a model with absence_plugins.captum.AbsenceIntegratedGradients, which needs no rules."


def likely_causes(root: nn.Module | None, x: Tensor) -> str:
    """What the model computes outside ruled modules, with the remedy of each, found by one more forward."""
    if root is None:
        return "The model is gone, so the cause cannot be looked for."
    found: dict[tuple[str, str], list[str]] = {}

    def record(function: str, module: str, advice: str) -> None:
        found.setdefault((advice, function), []).append(module)

    with ExitStack() as stack, quiet_forward((x,)):
        watch = _Outside(record, len(x))
        for name, module in root.named_modules():
            if any(isinstance(getattr(hook, "__self__", None), Hook) for hook in module._forward_pre_hooks.values()):
                is_root = module is root and any(True for _ in root.children())
                if not is_root:
                    stack.callback(module.register_forward_pre_hook(watch.enter_ruled, prepend=True).remove)
                    stack.callback(module.register_forward_hook(watch.leave_ruled, always_call=True).remove)
            else:
                label = f"{name or 'the model'} ({type(module).__name__})"
                stack.callback(module.register_forward_pre_hook(watch.entering(label), prepend=True).remove)
                stack.callback(module.register_forward_hook(watch.leave, always_call=True).remove)
        watch.names = [f"the forward of {type(root).__name__}"]
        stack.enter_context(watch)
        root(x.detach())
    if not found:
        return f"No operation outside the rules was found; a rule of the composite may not fit its module. {TRAILING}"
    lines = [
        f"{function} in {', '.join(dict.fromkeys(modules))}: {advice}" for (advice, function), modules in found.items()
    ]
    return "Likely: " + "; ".join(lines) + f". {TRAILING}"


class _Outside(TorchFunctionMode):
    """Records the named functions that are called outside modules with a rule."""

    def __init__(self, record: Callable[[str, str, str], None], batch: int) -> None:
        super().__init__()
        self.record, self.batch = record, batch
        self.names: list[str] = []
        self.inside = 0

    def entering(self, name: str) -> Callable[..., None]:
        """A hook that notes whose forward begins."""
        return lambda *_: self.names.append(name)

    def leave(self, *_: Any) -> None:
        """A forward ends."""
        self.names.pop()

    def enter_ruled(self, *_: Any) -> None:
        """The forward of a module with a rule begins."""
        self.inside += 1

    def leave_ruled(self, *_: Any) -> None:
        """It ends."""
        self.inside -= 1

    def _is_activation(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == self.batch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").strip()
        plain = name if name.startswith("__") else name.rstrip("_")
        if not self.inside and plain in ADVICE:
            constant = plain in ARITHMETIC and sum(self._is_activation(value) for value in args) < 2
            self.record(plain, self.names[-1] if self.names else "the model", CONSTANT if constant else ADVICE[plain])
            self.inside += 1  # F.relu calls torch.relu: one of them is enough
            try:
                return func(*args, **(kwargs or {}))
            finally:
                self.inside -= 1
        return func(*args, **(kwargs or {}))
