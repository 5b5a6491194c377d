"""The one mechanism behind every Captum adapter: choose the output, supply the references, read the sign.

An adapter is a subclass of Captum's class. It rewrites the target, the baselines and the sign of the
result; the algorithm stays Captum's. With ``nontarget=None, reference=None, evidence="signed"`` the
call goes straight to Captum's own method.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from captum.attr import Attribution, LayerActivation
from torch import Tensor

from absence_plugins.captum.batching import each_map
from absence_plugins.captum.calls import (
    Form,
    added,
    bound_arguments,
    expanded,
    leaves,
    redirect,
    run_host,
    select_neuron,
    without_announcements,
)
from absence_plugins.captum.conditions import check_options, checked_scores, explained_gradients
from absence_plugins.captum.decisions import decide_ahead, prepare
from absence_plugins.captum.evidence import average_deltas, content_parts, is_gradient, kind_of, magnitudes
from absence_plugins.captum.noise import adopt_tunnels
from absence_plugins.captum.passing import decide_in_passing
from absence_plugins.captum.plan import Plan, name_neuron
from absence_plugins.captum.precision import in_own_type
from absence_plugins.captum.remedies import refuse_absences, warn_incomplete, warn_limits
from absence_plugins.captum.shown import ShownMethod
from absence_plugins.captum.traits import LAYER_INPUTS, Traits
from absence_plugins.captum.wrapping import public_methods
from absence_plugins.core.choices import Nontarget
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.hooks import keeping, quiet_forward
from absence_plugins.core.kinds import keep_compared
from absence_plugins.core.maps import tree_map
from absence_plugins.core.precision import is_coarse
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.units import Layer

Evidence = Literal["signed", "absence", "presence"]


class AbsenceMethod(ShownMethod):
    """What all ``Absence*`` classes share: three keyword-only options behind the host's own arguments.

    Args:
        nontarget: which output is explained instead of the target: "runner_up" (highest of the others), "others" (their
            mean), a class index, one per sample, or ``f(outputs, target) -> [B]``; "target": the target itself;
            "margin": the target minus its runner-up (R > 0 speaks for the decision); "negated": minus the target;
            "auto": the target if a reference is given (not one made from the image itself), the model has a single
            output, or ends in a sigmoid over several (independent labels), else "runner_up"; None: the target as Captum
            explains it, without a reference bit for bit.
        reference: a :class:`~absence_plugins.ReferenceSet` that supplies the baselines (and the mean
            over them) when the caller passes none: for a target (its margin, its negative, the mean of the others)
            its contrast classes, for a non-target k the samples of class k. A
            :class:`~absence_plugins.MadeReferences` takes the place of a blank.
        evidence: "signed", the host's map: R > 0 raises the explained output, R < 0 holds it down.
            "absence", a magnitude >= 0: for a non-target max(-R, 0), content of x that holds it down;
            for a target against references max(R, 0) where they have content and x has none.
            "presence", a magnitude >= 0: the positive evidence that is left.

    Raises:
        ValueError: softmax outputs, NaN, an empty batch, a number of targets that is not B, references
            of another shape or without the labels that are needed, and settings in
            which the method cannot show absences. The model is as it was before.
    """

    _host: ClassVar[type[Attribution]]
    _traits: ClassVar[Traits]
    nontarget: Any
    reference: ReferenceSet | None
    evidence: Evidence
    _layers: list[Layer]  # as they were given by name, or as a Layer
    _delta = average_deltas

    if TYPE_CHECKING:
        layer: Any

        def __init__(
            self,
            *args: Any,
            nontarget: Nontarget | Literal["auto"] | None = "auto",
            reference: ReferenceSet | None = None,
            evidence: Evidence = "signed",
            **kwargs: Any,
        ) -> None: ...

    def __init_subclass__(cls, **traits: Any) -> None:
        super().__init_subclass__()
        if AbsenceMethod not in cls.__bases__:
            return  # a user's subclass of an adapter inherits everything
        host = next(base for base in cls.__bases__ if base is not AbsenceMethod)
        cls._host, cls._traits = host, Traits(**traits)
        for function in public_methods(host):
            function.__qualname__ = f"{cls.__qualname__}.{function.__name__}"
            function.__module__ = cls.__module__
            setattr(cls, function.__name__, function)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """As ``attribute(...)``, but returns an :class:`Explanation`: both parts, every reference, the numbers."""
        raise TypeError("explain belongs to the adapters of Captum's classes")

    @property
    def is_neutral(self) -> bool:
        """Whether this object is its host class, bit for bit."""
        return self.nontarget is None and self.reference is None and self.evidence == "signed"

    def _configure(self, nontarget: Any, reference: Any, evidence: Any) -> None:
        name = type(self).__name__
        check_options(nontarget, reference, evidence)
        self.nontarget, self.reference, self.evidence = nontarget, reference, evidence
        if self._traits.refuses and not self.is_neutral:
            refuse_absences(self)
        elif not self._has("target"):
            if nontarget is not None and not (isinstance(nontarget, str) and nontarget == "auto"):
                raise ValueError(f"{name} explains one neuron, which has no non-target; leave nontarget out")
        elif isinstance(nontarget, str) and nontarget == "auto" and reference is not None and not reference.is_made:
            self.nontarget = "target"
        if reference is not None and self._traits.no_reference:
            raise ValueError(f"{name} takes no reference: {self._traits.no_reference}")

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        baselines = self._traits.baselines if self.reference is not None else None
        automatic = "" if self.is_neutral else self._traits.automatic
        return bound_arguments(self._host, args, kwargs, baselines, self._traits.unsigned, automatic)

    def has_convergence_delta(self) -> bool:
        """As the host's. A NoiseTunnel asks it when it is made, and is then told the real input of its noisy copies."""
        if not self.is_neutral:
            adopt_tunnels(self)
        return bool(super().has_convergence_delta())  # type: ignore[misc]

    @classmethod
    def _has(cls, parameter: str) -> bool:
        return parameter in Form.of(cls._host.attribute).known

    @property
    def _is_auto(self) -> bool:
        return isinstance(self.nontarget, str) and self.nontarget == "auto"

    # -- the model --------------------------------------------------------------------------------

    @property
    def _model(self) -> Any:
        return self.forward_func  # type: ignore[attr-defined]

    def _forward(self, plan: Plan, inputs: tuple[Tensor, ...]) -> Tensor:
        """The model's raw outputs for real samples."""
        return self._checked(plan.model(*inputs, *plan.extra(plan.copies)), len(inputs[0]))

    @staticmethod
    def _checked(outputs: Any, samples: int) -> Tensor:
        return checked_scores(outputs, samples)

    def _value(self, plan: Plan, inputs: tuple[Tensor, ...]) -> Tensor:
        """The explained value u of real samples [B]."""
        if plan.choice is not None:
            return plan.choice.values(self._forward(plan, inputs))
        return select_neuron(self._activation(plan, inputs, plan.extra(plan.copies)), plan.arguments["neuron_selector"])

    def _activation(self, plan: Plan, inputs: tuple[Tensor, ...], extra: tuple[Any, ...]) -> Any:
        """The layer's value where it is read, for inputs with their extra arguments."""
        activations = LayerActivation(plan.model, plan.layer(self.layer), getattr(self, "device_ids", None))
        is_input = plan.points[0].is_input
        with plan.at_points():
            return activations.attribute(
                inputs, additional_forward_args=extra or None, attribute_to_layer_input=is_input
            )

    # -- one baseline -----------------------------------------------------------------------------

    def _signed(self, plan: Plan, reference: tuple[Tensor, ...] | None) -> tuple[Any, Tensor | None]:
        """The host's signed map of the chosen output against one baseline, and its delta if asked for."""
        call = dict(plan.arguments)
        call["inputs"] = plan.inputs if plan.is_tuple else plan.inputs[0]
        host, model = _copied(self), plan.model
        if plan.passing is not None:
            model = plan.passing.prepare(call)
        elif plan.choice is not None and (self.nontarget is not None or plan.choice.summed):
            call["target"] = plan.target()
            model = plan.choice.around(model)
        if model is not self._model:
            redirect(host, model)
        if plan.points:
            host.layer = plan.layer(self.layer)
            call.update({name: plan.points[0].is_input for name in LAYER_INPUTS if name in call})
        if reference is not None:
            call[self._traits.baselines] = self._as_baselines(plan, reference)
        quiet = without_announcements() if plan.passing is None else nullcontext()
        with keeping(plan.modules), quiet, plan.at_points(), explained_gradients(self):
            result = self._run(host, call, plan, paired=reference is not None)
        signed, delta = result if call.get("return_convergence_delta") else (result, None)
        return in_own_type(plan, signed), delta

    def _as_baselines(self, plan: Plan, reference: tuple[Tensor, ...]) -> Any:
        return reference if plan.is_tuple else reference[0]

    def _run(self, host: Any, call: dict[str, Any], plan: Plan, *, paired: bool) -> Any:
        """Captum's own algorithm. ``paired``: the baseline of sample i belongs to sample i."""
        return run_host(self._host, host, call)

    # -- all baselines ----------------------------------------------------------------------------

    def _collect(self, arguments: dict[str, Any], *, full: bool) -> tuple[Explanation, Tensor | None]:
        """One map after the other, summed as they come; ``full`` keeps each and measures every u(r)."""
        wants_parts = full or self.evidence != "signed"
        plan = prepare(self, arguments, wants_parts=wants_parts)
        plan, early = decide_in_passing(self, plan)
        if early is None:
            decide_ahead(self, plan)
        by_content = wants_parts and not plan.is_blank and (plan.view == "target" or plan.references is not None)
        by_content = by_content and not plan.is_made  # all that differs is content of x
        signed = present = absent = first = None
        maps, deltas, values = [], [], []
        level = 4 if full else 5  # frames up to the user's call; attribute is wrapped once more
        each = each_map(self, plan, level) if early is None else [(None, *early)]
        for number, (reference, one, delta) in enumerate(each):
            signed, first = added(signed, one), one if number == 0 else first
            if by_content:
                parts = content_parts(self, plan, one, reference)
                present, absent = added(present, parts[0]), added(absent, parts[1])
            if delta is not None:
                deltas.append(delta)
            if full:
                maps.append(one)
            if full or (
                number == 0 and (reference is not None or self._is_checked or is_coarse(plan.dtype))
            ):  # the nearest one stands for all
                values.append(self._reference_value(plan, reference))
        count = 1 if plan.references is None else plan.references[0].shape[1]
        if count > 1:
            sums = (signed, present, absent)
            signed, present, absent = (None if one is None else tree_map(lambda r: r / count, one) for one in sums)
        measured = (
            torch.stack([value for value in values if value is not None], 1)
            if values and values[0] is not None
            else None
        )
        warn_limits(self, plan, signed, measured, level)
        is_grouped = plan.arguments.get("feature_mask") is not None  # every entry has the value of its group
        if self._is_checked and not is_grouped and values and values[0] is not None:
            warn_incomplete(self, plan, first, values[0], level)
        if wants_parts:
            present, absent = magnitudes(plan, signed, present, absent, kind_of(self))
        explanation = Explanation(
            attribution=signed,
            presence=present,
            absence=absent,
            view=plan.view,
            target=plan.choice.classes if plan.choice else None,
            nontarget=plan.choice.nontargets if plan.choice else None,
            output=plan.output,
            reference_output=measured,
            per_reference=tree_map(lambda *each: torch.stack(each, 1), *maps)
            if full and plan.references is not None
            else None,
            completeness_error=self._completeness(plan, signed, measured) if full else None,
            explained=plan.choice or (name_neuron(self, plan) if full else None),  # a look for the layer's name
            **keep_compared(self.reference, plan.real[0], plan.drawn) if full else {},
        )
        return explanation, self._delta(deltas) if deltas else None

    def _reference_value(self, plan: Plan, reference: tuple[Tensor, ...] | None) -> Tensor | None:
        """u(r) of one reference per sample, or of the caller's baseline; None where there is none."""
        if reference is not None:
            reference = tuple(part[:: plan.copies] for part in reference)
        elif self._has("baselines") or self._traits.exact:
            reference = expanded(plan.arguments.get("baselines"), plan.real, paired=not self._traits.distribution)
        if reference is None:
            return None
        with quiet_forward(reference), keeping(plan.modules):
            if plan.choice is None:
                return self._value(plan, reference)
            outputs = self._forward(plan, reference)
            plan.reference_outputs = outputs if plan.reference_outputs is None else plan.reference_outputs
            return plan.choice.values(outputs)

    @property
    def _is_checked(self) -> bool:
        """Whether the map's sum is compared with u(x) - u(r) after the call."""
        return self._traits.complete and not self._traits.exact and not self._traits.sampled and not is_gradient(self)

    def _completeness(self, plan: Plan, signed: Any, values: Tensor | None) -> Tensor | None:
        if (
            not self._traits.complete
            or is_gradient(self)
            or values is None
            or plan.arguments.get("feature_mask") is not None
        ):
            return None
        total = torch.stack([part.reshape(len(part), -1).sum(1) for part in leaves(signed)]).sum(0)
        return total - (plan.output - values.mean(1))


def _copied(method: AbsenceMethod) -> Any:
    """A copy whose model and layer can be others; as ``copy.copy``, at a third of the time."""
    found = object.__new__(type(method))
    found.__dict__.update(method.__dict__)
    return found
