"""What is perturbed: the inputs of a model, or the values of a layer in it; and the model on perturbed samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all

from absence_plugins.captum.calls import expanded, select_neuron
from absence_plugins.captum.features import Inputs
from absence_plugins.captum.forwards import CALL, Explained, Forwards, Quicker, find_runs
from absence_plugins.captum.plan import Plan
from absence_plugins.core.changed_parts import holds_scripts
from absence_plugins.core.choices import Choice
from absence_plugins.core.hooks import hooking, keep_to_thread, quiet_forward
from absence_plugins.core.outputs import Output
from absence_plugins.core.weighing import Weighing

LEAST_FRONT = 0.3  # of a forward, in front of a layer
MORE_CALLS = 20  # what a forward of ours costs beside the operations of the model


@dataclass(frozen=True)
class Perturbed:
    """The inputs of a method's model.

    Attributes:
        inputs: what is perturbed, per input [B, ...].
        mask: the argument that groups its entries.
    """

    method: Any
    plan: Plan
    inputs: Inputs
    mask: str = "feature_mask"

    @classmethod
    def of(cls, method: Any, plan: Plan) -> Perturbed | None:
        """What a method perturbs; None where Captum's loop is to run."""
        if plan.choice is None or not plan.points:
            return Perturbed(method, plan, plan.inputs)
        return PerturbedLayer.of(method, plan)

    @property
    def can_be_followed(self) -> bool:
        """Whether :func:`~absence_plugins.core.changed_parts.run_changed` may follow the model."""
        return self.plan.choice is not None and is_unwatched(self.method._model)

    def forwards(self, tick: Callable[[int, int], object]) -> Forwards:
        """The model on perturbed samples."""
        plan, output = self.plan, self.plan.output
        if plan.copies > 1:
            every = torch.arange(len(plan.inputs[0]))
            explained, outputs = self.explain(self.run(self.inputs, every), every)
            output = explained.values(outputs)
        part = plan.inputs[0]
        size = part[0].numel() * part.element_size()
        is_weighed = isinstance(self, PerturbedLayer)
        return Forwards(self.inputs, output, self.run, self.explain, plan.dtype, size, tick, is_weighed)

    def references(self) -> Inputs | None:
        """The baselines of every sample, per input [B, K, ...]; None where they are of another type than the inputs."""
        plan = self.plan
        if plan.references is not None:
            return plan.references
        return expand_given(plan.arguments.get("baselines"), self.inputs)

    def run(self, inputs: Inputs, images: Tensor) -> Any:
        """The outputs, or the neuron's layer, of inputs [N, ...] that are variants of samples ``images`` [N]."""
        plan, extra = self.plan, self._extra(images)
        return self.method._activation(plan, inputs, extra) if plan.choice is None else plan.model(*inputs, *extra)

    def explain(self, outputs: Any, images: Tensor) -> tuple[Explained, Any]:
        """What is explained of these samples, and the outputs after a check."""
        plan = self.plan
        if plan.choice is None:
            return Neuron(plan.arguments["neuron_selector"]), outputs
        is_whole = plan.copies == 1 and torch.equal(images, torch.arange(len(plan.inputs[0])))
        explained = plan.choice if is_whole else plan.choice.of_samples(images // plan.copies)
        assert isinstance(explained, Choice)
        return explained, self.method._checked(outputs, len(images))

    def as_given(self, maps: Inputs) -> Any:
        """Maps in the form of the inputs: a tuple where a tuple was given."""
        return maps if self.plan.is_tuple else maps[0]

    def _extra(self, images: Tensor) -> tuple[Any, ...]:
        """The additional arguments of samples ``images`` [N]."""
        total = len(self.plan.inputs[0])

        def own(value: Any) -> Any:
            is_per_sample = isinstance(value, Tensor) and value.dim() > 0 and len(value) == total
            return value[images.to(value.device)] if is_per_sample else value

        return tuple(map(own, self.plan.extra(1)))


@dataclass(frozen=True)
class PerturbedLayer(Perturbed):
    """The values of a layer, with which the forward of the sample goes on."""

    mask: str = "layer_mask"

    @classmethod
    def of(cls, method: Any, plan: Plan) -> Perturbed | None:
        """The layer of a method; None where it has not one value per sample, or where a model is spread over devices."""
        if len(plan.points) > 1 or getattr(method, "device_ids", None) or hasattr(method._model, "device_ids"):
            return None
        with quiet_forward(plan.inputs):
            values = method._activation(plan, plan.inputs, plan.extra(1))
        inputs = tuple(values) if isinstance(values, (tuple, list)) else (values,)
        is_per_sample = all(part.dim() > 1 and len(part) == len(plan.inputs[0]) for part in inputs)
        return cls(method, plan, inputs) if is_per_sample else None

    @property
    def can_be_followed(self) -> bool:
        """As :class:`Perturbed`."""
        return False

    def references(self) -> Inputs | None:
        """As :class:`Perturbed`; the layer's values on the references."""
        plan = self.plan
        if plan.references is None:
            return expand_given(plan.arguments.get("layer_baselines"), self.inputs)
        found = []
        for reference in plan.each_reference():
            assert reference is not None
            values = self.method._as_baselines(plan, reference)
            found.append(values if isinstance(values, (tuple, list)) else (values,))
        return tuple(torch.stack(parts, 1) for parts in zip(*found, strict=True))

    def run(self, inputs: Inputs, images: Tensor) -> Any:
        """The outputs of samples ``images`` [N] whose layer has the values ``inputs`` [N, ...]."""
        own = tuple(part[images.to(part.device)] for part in self.plan.inputs)
        with self.plan.at_points(), hooking(self._point.module, [lambda: self._register(inputs)]):
            return self.plan.model(*own, *self._extra(images))

    def find_by_sample(self, forwards: Forwards, rows: int, weighing: Weighing) -> list[Quicker]:
        """The way in which what is in front of the layer runs once for each sample, and not for every row; nothing
        where that saves little. ``weighing``: of a forward of all samples.
        """
        samples = len(self.inputs[0])
        front = weighing.marked / samples
        spent = (weighing.calls + MORE_CALLS) * CALL * samples
        if weighing.marked < LEAST_FRONT * weighing.total or front * (rows - samples) < spent:
            return []
        share = weighing.largest_behind / weighing.largest
        return [Quicker(lambda inputs, rows: self._run_by_sample(forwards, inputs, rows), share)]

    def _run_by_sample(self, forwards: Forwards, inputs: Inputs, rows: Tensor) -> Tensor:
        """The values [N] of perturbed layers: up to the layer every sample runs once, behind it once for each row.

        Right where what follows takes one row from elsewhere for all, as sums with a residual connection do.
        """
        found = rows.new_zeros(len(rows), dtype=forwards.output.dtype, device=forwards.output.device)
        order = rows[:, 0].argsort(stable=True)
        if not torch.equal(order, torch.arange(len(rows))):
            rows, inputs = rows[order], tuple(part[order.to(part.device)] for part in inputs)
        for start, end in find_runs(rows[:, :1]):
            own = rows[start:end, 0]
            outputs = self.run(tuple(part[start:end] for part in inputs), own[:1])
            explained, outputs = self.explain(outputs, own)
            found[order[start:end].to(found.device)] = explained.values(outputs).to(found)
        return found

    def as_given(self, maps: Inputs) -> Any:
        """As :class:`Perturbed`: a tuple where the layer has several values."""
        return maps if len(maps) > 1 else maps[0]

    @property
    def _point(self) -> Any:
        return self.plan.points[0]

    def _register(self, inputs: Inputs) -> Any:
        def put_out(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            Weighing.mark_running()
            return inputs if isinstance(output, tuple) else inputs[0]

        def take_in(_module: nn.Module, _inputs: Any) -> Any:
            Weighing.mark_running()
            return inputs

        module = self._point.module
        if self._point.is_input:
            return module.register_forward_pre_hook(keep_to_thread(take_in))
        return module.register_forward_hook(keep_to_thread(put_out))


def expand_given(given: Any, inputs: Inputs) -> Inputs | None:
    """The caller's baselines of every sample, per input [B, 1, ...]; None where they are of another type."""
    parts = given if isinstance(given, tuple) else (given,) * len(inputs)
    for part, own in zip(parts, inputs, strict=True):
        if torch.result_type(own, 0 if part is None else part) != own.dtype:
            return None
    found = expanded(given, inputs, paired=True)
    return None if found is None else tuple(part[:, None] for part in found)


def is_unwatched(model: Any) -> bool:
    """Whether nobody looks into a model's forward: a module without forward hooks, run as it is written."""
    model = getattr(model, "__self__", model)
    if not isinstance(model, nn.Module) or hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks:
        return False
    is_watched = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    is_spread = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return not (is_watched or is_spread or holds_scripts(model))


@dataclass(frozen=True)
class Neuron(Output):
    """A neuron as Captum's ``neuron_selector`` names it, of a layer's activation."""

    selector: Any

    def values(self, outputs: Any) -> Tensor:
        """Its values [N]."""
        return select_neuron(outputs, self.selector)

    def sizes(self, outputs: Any) -> Tensor:
        """How large they are [N]."""
        return self.values(outputs).abs()
