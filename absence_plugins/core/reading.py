"""Reading a layer while the model runs: which module a name means, on which side it is read, and where to stop.

**The side, stated once.** A unit is the value *before* the nonlinearity that its layer ends in: behind it, the unit is
0 (or nearly so), with no gradient, exactly where the concept whose absence it encodes is present. So ``side="auto"``
reads the input of an activation module, of a ``Sequential`` that ends in one, and of any block that returns the output
of one (a residual block that ends in ``self.relu(...)``); every other layer is read at its output. ``"input"`` and
``"output"`` ask for a side by name. What is read is a copy, taken before anything works in place on the tensor. Of the
model itself a softmax or sigmoid that is called as a function counts, too (:mod:`absence_plugins.core.recorder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import hooking, keep_to_thread, unchanged
from absence_plugins.core.interrupts import undivided
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.running import EXPORTED, SCRIPTED, as_written, explained_running
from absence_plugins.core.turns import working_on

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold, nn.Hardtanh)
ACTIVATIONS = (
    *RECTIFIERS,
    *(nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Softmax, nn.LogSoftmax),
)
ACTIVATION_WORDS = ("relu", "gelu", "silu", "swish", "mish", "sigmoid", "softplus", "softmax", "tanh")
SIDES = ("auto", "input", "output")
PREFERRED = ("last_hidden_state", "logits", "out")  # of a layer's output with several fields


def is_rectifier(module: nn.Module) -> bool:
    """Whether a module's output is that of a rectifier: itself one, or a container that ends in one.

    >>> is_rectifier(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))
    True
    """
    return isinstance(last_of(module), RECTIFIERS)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is a nonlinearity that works on every value (or along the channels, as a softmax).

    One of torch's, or another package's by its name (timm's ``GELU``, transformers' ``NewGELUActivation``).

    >>> is_activation(nn.SiLU()), is_activation(nn.Linear(1, 1))
    (True, False)
    """
    if isinstance(module, ACTIVATIONS):
        return True
    name = type(module).__name__.lower()
    is_leaf = next(module.children(), None) is None and not any(one.dim() > 1 for one in module.parameters())
    return is_leaf and any(word in name for word in ACTIVATION_WORDS)


def last_of(module: nn.Module) -> nn.Module:
    """The module whose output is that of a (nested) ``Sequential``; any other module itself."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``'s wrapper, where hooks are heard; any other model itself."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module of a name as in ``named_modules()``, or as Lucent joins it (``layer1_0_bn2``); "" is the model.

    Raises:
        ValueError: there is none (the nearest names are listed), or a joined name fits two modules.

    >>> find_module(nn.Sequential(nn.Sequential(nn.ReLU())), "0_0")
    ReLU()
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a layer is read in an nn.Module, got a {type(model).__name__}; pass the module")
    modules: dict[str, nn.Module] = dict(plain_model(model).named_modules(remove_duplicate=False))
    if name in modules:
        return modules[name]
    joined = [dotted for dotted in modules if dotted and dotted.replace(".", "_") == name]
    if len(joined) == 1:
        return modules[joined[0]]
    if joined:
        raise ValueError(f"layer {name!r} may be {' or '.join(joined)}; write its name with dots")
    raise ValueError(f"the model has no layer {name!r}; it has: {describe_nearest(name, [n for n in modules if n])}")


def tensor_of(value: Any, name: str) -> Tensor:
    """The tensor that a layer puts out: itself, the first of a tuple, a field of a dictionary or dataclass.

    Of several fields: ``last_hidden_state``, ``logits``, ``out``, or the only floating tensor.

    Raises:
        ValueError: there is none, or several fields could be meant; the fields are named.
    """
    found = value
    if isinstance(value, Mapping):
        found = _field(dict(value), name)
    elif is_dataclass(value) and not isinstance(value, type):
        found = _field({one.name: getattr(value, one.name) for one in fields(value)}, name)
    elif isinstance(value, (tuple, list)):
        tensors = [part for part in value if isinstance(part, Tensor) and part.is_floating_point()]
        found = tensors[0] if tensors else (tensor_of(value[0], name) if len(value) else value)
    if not isinstance(found, Tensor):
        raise ValueError(f"layer {name!r} must put out a tensor, got a {type(value).__name__}")
    return found


def _field(named: dict[str, Any], name: str) -> Any:
    tensors = {key: one for key, one in named.items() if isinstance(one, Tensor) and one.is_floating_point()}
    for key in PREFERRED:
        if key in tensors:
            return tensors[key]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    raise ValueError(
        f"layer {name!r} puts out {', '.join(named) or 'nothing'}: it cannot be told which of {list(tensors)} is "
        "meant; "
        "name a layer in front of it that puts out one tensor"
    )


class Watch:
    """Reads one module during forwards; ``values`` holds a copy per call, ``point`` where the last one was taken.

    A block is watched together with the activation modules inside it, until it is known which one it ends in.
    """

    replaces = False

    def __init__(self, module: nn.Module, side: str, name: str) -> None:
        self.module, self.side, self.name = module, side, name
        self.values: list[Tensor] = []
        self.returned: Any = None  # the module's whole output (or its inputs) of the last call
        self.point: tuple[nn.Module, str] = (module, "output")
        self._entered: list[tuple[nn.Module, Tensor]] = []
        self._left: tuple[nn.Module, Any, Tensor] | None = None  # the last activation inside: module, output, its input
        self._handles: list[Any] = []

    def __enter__(self) -> Watch:
        if isinstance(self.module, torch.jit.ScriptModule):
            raise ValueError(f"layer {self.name!r} {SCRIPTED}")
        try:
            self._begin_watching()
        except BaseException:  # a module inside takes no hook
            self._off()
            raise
        return self

    def _begin_watching(self) -> None:
        inner = last_of(self.module) if self.side == "auto" else self.module
        if self.side == "input" or (self.side == "auto" and is_activation(inner)):
            self._on(inner.register_forward_pre_hook(keep_to_thread(self._keep_input), prepend=True, with_kwargs=True))
            _replacements_first(inner._forward_pre_hooks)
            return
        self._on_output([one for one in self.module.modules() if is_activation(one)] if self.side == "auto" else [])

    @undivided
    def narrow(self) -> None:
        """After a forward: of the activations inside a block only the one that it was seen to end in is watched on."""
        module, side = self.point
        if side == "input" and (module is last_of(self.module) or self.side == "input"):
            return
        self._off()
        self._on_output([module] if side == "input" else [])

    def _on_output(self, activations: list[nn.Module]) -> None:
        for activation in activations:
            self._on(activation.register_forward_pre_hook(keep_to_thread(self._enter_activation), prepend=True))
            _replacements_first(activation._forward_pre_hooks)
            self._on(activation.register_forward_hook(keep_to_thread(self._leave_activation), prepend=True))
        # in front of other hooks: the copy is taken before anything works in place on the output
        self._on(self.module.register_forward_hook(keep_to_thread(self._keep_output), prepend=True))
        _replacements_first(self.module._forward_hooks)

    def __exit__(self, *error: object) -> None:
        self._off()

    def last(self) -> Tensor:
        """The value of the last call; forgets all. Raises ValueError if the module did not run."""
        if not self.values:
            why = f"; {EXPORTED}" if type(self.module) is nn.Module else ""  # a module without a forward of its own
            raise ValueError(f"layer {self.name!r} does not run in the model's forward, so it has no activation{why}")
        value = self.values[-1]
        self.forget()
        return value

    def forget(self) -> None:
        """Before a forward."""
        self.values.clear()
        self.returned = None
        self._entered.clear()
        self._left = None

    def _on(self, handle: Any) -> None:
        self._handles.append(handle)

    def _off(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep_input(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        taken = [*inputs, *keywords.values()]
        self.point, self.returned = (module, "input"), inputs
        self.values.append(tensor_of(tuple(taken), self.name).clone())

    def _enter_activation(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            self._entered.append((module, inputs[0].clone()))

    def _leave_activation(self, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        while self._entered:
            entered, value = self._entered.pop()
            if entered is module:
                self._left = (module, output, value)
                return

    def _keep_output(self, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        value, self.returned = tensor_of(output, self.name), output
        if self._left is not None and self._left[1] is value:  # the block ends in this activation
            self.point = (self._left[0], "input")
            self.values.append(self._left[2])
        else:
            self.point = (module, "output")
            self.values.append(value.clone())
        self._left = None


def _replacements_first(hooks: Any) -> None:
    """Let a watch read what a replacement (core/replacing.py) puts at the same point."""
    for key, hook in list(hooks.items()):
        if getattr(getattr(hook, "__self__", None), "replaces", False):
            hooks.move_to_end(key, last=False)


class _Reached(Exception):
    """Ends a forward whose rest is not needed."""


def run_model(model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any] | None = None) -> Any:
    """The model on copies of its inputs: a forward that works in place on its input leaves the user's tensors alone.

    One mapping as the only input is passed as keywords (``pixel_values=``, ``input_ids=``).
    """
    named: dict[str, Any] = dict(keywords or {})
    given: list[Any] = list(inputs)
    if len(given) == 1 and isinstance(given[0], Mapping):
        named = {**given[0], **named}
        given = []
    elif len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = list(given[0])
    copied = [value.clone() if isinstance(value, Tensor) else value for value in given]
    named = {name: value.clone() if isinstance(value, Tensor) else value for name, value in named.items()}
    inner = plain_model(model)
    with working_on(inner), as_written(), explained_running():
        return inner(*copied, **named)


def batch_size_of(inputs: tuple[Any, ...], keywords: Mapping[str, Any] | None = None) -> int | None:
    """Samples in the inputs: the length of the first tensor; None where there is none."""
    pending: list[Any] = [*inputs, *(keywords or {}).values()]
    while pending:
        value = pending.pop(0)
        if isinstance(value, Tensor):
            return len(value) if value.dim() else None
        if isinstance(value, Mapping):
            pending = [*value.values(), *pending]
        elif isinstance(value, (tuple, list)):
            pending = [*value, *pending]
    return None


@contextmanager
def stopped_at(model: nn.Module, watch: Watch, *, gradients: bool = False) -> Iterator[Callable[..., Tensor]]:
    """A function from inputs to what a watch reads, which runs the model no further than the watched module.

    A module that is called several times in one forward is read at its last call, and then the whole model runs. In
    evaluation mode, without gradients unless ``gradients``; the model is as before after the block.

    Raises (the function):
        ValueError: the module does not run, or puts out no tensor.
    """
    calls: list[int] = []  # in one whole forward; known after the first
    running: list[bool] = []

    def stop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        if calls == [1] and running:
            raise _Reached

    def run(*inputs: Any, **keywords: Any) -> Tensor:
        watch.forget()
        running.append(True)
        with torch.enable_grad() if gradients else torch.inference_mode():
            try:
                run_model(model, inputs, keywords)
            except _Reached:
                pass
            except Exception:
                if not watch.values:  # behind the module the model may fail, for example on small crops
                    raise
            finally:
                running.clear()
        if not calls and watch.values:
            calls.append(len(watch.values))
            if calls == [1]:
                watch.narrow()
        return watch.last()

    with unchanged(plain_model(model)), watch:
        for module in plain_model(model).modules():
            module.training = False  # exported programs have no eval()
        with hooking(watch.module, [lambda: watch.module.register_forward_hook(keep_to_thread(stop))]):
            yield run
