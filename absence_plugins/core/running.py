"""Ways of running that hooks or gradients cannot follow: torch's raw message becomes one line, the cause and the
remedy.
"""

from __future__ import annotations

import sys
from typing import Any, Self

import torch
from torch import nn

from absence_plugins.core.checkpoints import without_checkpoints

INFERENCE = (
    "the model's parameters were made in torch.inference_mode(), so no gradient passes them; make or load the model "
    "outside it"
)
SCRIPTED = (
    "is TorchScript, in which hooks are not heard: pass the Python model that was given to torch.jit.script or "
    "torch.jit.trace; what needs no hook works on it (AbsenceIntegratedGradients, AbsenceSaliency, "
    "AbsenceFeatureAblation, absence_scores)"
)
EXPORTED = "an exported program keeps the names of layers, but does not call them: pass the model that was given to torch.export"
WORDS = {  # by what torch says
    "Inference tensors cannot be saved for backward": INFERENCE,
    "on inference tensor outside InferenceMode": INFERENCE,
    "not supported on ScriptModules": f"the model, or a module in it, {SCRIPTED}",
}


class as_written(without_checkpoints):
    """In this block models run as they are written: compiled modules eagerly, checkpointed parts without checkpoints.

    So hooks on them are heard, and the graph of a forward is whole.
    """

    _stance: Any = None

    def __enter__(self) -> Self:
        super().__enter__()
        # nothing is compiled where dynamo is not loaded, and its import takes seconds
        if hasattr(torch.compiler, "set_stance") and "torch._dynamo" in sys.modules:
            try:
                self._stance = torch.compiler.set_stance("force_eager")
                self._stance.__enter__()
            except BaseException:
                super().__exit__()
                raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if self._stance is not None:
                self._stance.__exit__(*error)
        finally:
            super().__exit__(*error)


class explained_running:
    """In this block torch's errors about inference mode and TorchScript are ValueErrors in our words.

    >>> with explained_running():
    ...     torch.jit.trace(nn.ReLU(), torch.ones(1)).register_forward_hook(print)  # doctest: +ELLIPSIS
    <torch.utils.hooks.RemovableHandle object at ...>
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError):
            words = next((ours for theirs, ours in WORDS.items() if theirs in str(error)), None)
            if words is not None:
                raise ValueError(words) from error


def check_heard(model: Any, who: str) -> None:
    """Reject a model of which hooks on its modules are not heard: TorchScript, exported programs, no module at all.

    ``who``: what needs them, for the message.

    Raises:
        ValueError: which module, and what to pass.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{who} works on the modules of a model, and got a {type(model).__name__}: pass the nn.Module, or use "
            "AbsenceIntegratedGradients or AbsenceFeatureAblation, which take any function"
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{who} cannot work: {f'module {name!r}' if name else 'the model'} {SCRIPTED}")
    if is_exported(model):
        raise ValueError(f"{who} cannot work: {EXPORTED}")


def is_exported(model: Any) -> bool:
    """Whether a model is the module of a ``torch.export`` program, whose forward calls torch's operators alone."""
    graph = getattr(model, "graph", None) if isinstance(model, torch.fx.GraphModule) else None
    calls = [node for node in graph.nodes if node.op in ("call_module", "call_function")] if graph is not None else []
    return any(isinstance(node.target, torch._ops.OpOverload) for node in calls)
