"""What is decided once per call, on the real inputs: which output, which references, which view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from absence_plugins.captum.calls import extra_arguments
from absence_plugins.captum.points import Point, name_of
from absence_plugins.core.choices import Choice
from absence_plugins.core.outputs import Named

NOTHING = torch.empty(0)


@dataclass
class Plan:
    """One call of B samples; inside a NoiseTunnel the inputs are ``copies`` noisy copies of each."""

    arguments: dict[str, Any]
    inputs: tuple[Tensor, ...]
    real: tuple[Tensor, ...]
    copies: int = 1
    choice: Choice | None = None
    output: Tensor = NOTHING  # u(x) of the real samples [B]
    size: Tensor = NOTHING  # of the outputs behind u [B], in half precision
    dtype: torch.dtype = torch.float32  # the least exact one of the call
    columns: int = 1  # outputs the host can select from
    view: Literal["target", "nontarget"] = "target"
    is_blank: bool = False  # the target against a blank baseline, where nothing missing can show
    reference_outputs: Tensor | None = None  # of the nearest references [B, K, ...]
    is_made: bool = False  # the references are the inputs themselves without their content
    references: tuple[Tensor, ...] | None = None  # per input [copies * B, k, ...]
    ending: str = ""  # the softmax or sigmoid that the user's model ends in, whose input is explained
    model: Any = None  # what is explained: the user's model, or around it one that puts out its scores
    drawing: tuple[str, nn.Module] | None = None  # a module that draws at random in the forward
    modules: list[nn.Module] = field(default_factory=list)  # of the user's model
    parameters: list[Tensor] = field(default_factory=list)  # of these
    wants_parts: bool = False  # evidence is read from the map
    passing: Any = None  # the model in the host's own forward, in which the output is chosen
    points: list[Point] = field(default_factory=list)  # where the method's layers are read

    @property
    def is_tuple(self) -> bool:
        """Whether the caller passed a tuple of inputs, and gets a tuple of maps."""
        return isinstance(self.arguments["inputs"], tuple)

    @property
    def step(self) -> Tensor | float:
        """What rounding in half precision can take from or add to u(x) - u(r) [B]; 0 in other types."""
        return torch.finfo(self.dtype).eps * self.size if self.size.numel() else 0.0

    @property
    def real_repeated(self) -> tuple[Tensor, ...]:
        """The real samples, once for every copy."""
        return self.real if self.copies == 1 else tuple(part.repeat_interleave(self.copies, 0) for part in self.real)

    @property
    def drawn(self) -> Tensor | None:
        """The references of the first input, once for every real sample [B, k, ...]."""
        return None if self.references is None else self.references[0][:: self.copies]

    def extra(self, copies: int) -> tuple[Any, ...]:
        """Additional forward arguments, one entry for each of ``copies``."""
        return tuple(  # Captum repeats tensors only
            every(value, copies) if isinstance(value, Tensor) else value for value in extra_arguments(self.arguments)
        )

    def target(self) -> Any:
        """The chosen output as the host's target, once for every copy."""
        assert self.choice is not None
        index = self.choice.index
        if isinstance(index, Tensor):
            return index.repeat_interleave(self.copies)
        return [entry for entry in index for _ in range(self.copies)]

    def layer(self, given: Any) -> Any:
        """What Captum is told to be its layer: one module, or a list of them where a list was given."""
        modules = [point.module for point in self.points]
        return modules if isinstance(given, list) else modules[0]

    def at_points(self) -> AbstractContextManager[object]:
        """In this block forwards pass through the modules at which the layers are read."""
        if not self.points:
            return nullcontext()
        with ExitStack() as stack:
            for point in self.points:
                stack.enter_context(point.on())
            return stack.pop_all()

    def each_reference(self) -> Iterator[tuple[Tensor, ...] | None]:
        """The references one after the other (per input [copies * B, ...]); None: as the caller said."""
        if self.references is None:
            yield None
        else:
            for column in range(self.references[0].shape[1]):
                yield tuple(part[:, column] for part in self.references)


def name_neuron(method: Any, plan: Plan) -> Named:
    """The neuron of a method without a target, in words."""
    selector = plan.arguments.get("neuron_selector")
    layer = name_of(method.layer, getattr(method._model, "__self__", method._model))
    return Named(f"a neuron of {layer}" if callable(selector) else f"neuron {selector} of {layer}")


def every(value: Any, copies: int) -> Any:
    """One entry for each real sample out of a per-sample argument that was repeated for noisy copies."""
    if (
        copies == 1
        or not isinstance(value, (Tensor, list))
        or (isinstance(value, Tensor) and value.dim() == 0)
        or len(value) == 1
    ):
        return value
    return value[::copies]
