"""What the ``Absence*`` attributors share: which output is explained, and what it is compared with.

An attributor is a subclass of Zennit's. It decides once, on the real input, which output is explained and what it is
compared with; the algorithm stays Zennit's. With ``reference=None, nontarget=None`` and a composite of Zennit's (or
none) the call goes straight to Zennit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zennit.attribution import constant

from absence_plugins.core.choices import Choice, Nontarget, check_rivals, check_word
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.hooks import hooking, quiet_forward, rewritten
from absence_plugins.core.kinds import keep_compared, split_evidence, sum_positive
from absence_plugins.core.maps import split_by_sign
from absence_plugins.core.outputs import check_logits, shrunk
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.running import as_written, check_heard, explained_running
from absence_plugins.core.scores import announce
from absence_plugins.core.suitability import warn_alike, warn_unsuitable
from absence_plugins.core.training import Draws
from absence_plugins.core.turns import working_on
from absence_plugins.zennit.checks import check_drawing, check_input, check_mode, check_names, explained_integers
from absence_plugins.zennit.guided import Triple
from absence_plugins.zennit.pairing import Pair, of_thread
from absence_plugins.zennit.plan import Plan
from absence_plugins.zennit.refused import REFUSALS
from absence_plugins.zennit.registration import block_of, register_whole, registered, remove_whole, working_with
from absence_plugins.zennit.root_hook import Question, RootHook, expand_checked, hooks_on
from absence_plugins.zennit.rules import AbsenceRule
from absence_plugins.zennit.scores import check_values, scores_only, warn_rounding, weighted
from absence_plugins.zennit.seeds import (
    NontargetOutput,
    asked_weights,
    asking,
    chosen_weights,
    compared_classes,
    divides_by_outputs,
    explained_output,
    named_classes,
)
from absence_plugins.zennit.shown import ShownAttributor

Reference = ReferenceSet | Tensor | None
OutputFunction = Callable[[Tensor], Tensor]


class AbsenceAttributor(ShownAttributor):
    """What all ``Absence*`` attributors share: two keyword-only options behind Zennit's own arguments.

    Args:
        model, composite, attr_output: as in Zennit. ``attr_output`` says *which* output is explained:
            ``torch.eye(K)[[k]]``, a function, or ``nontarget(...)``; the seed that suits the composite is computed
            here.
        reference: what the input is compared with: a :class:`~absence_plugins.ReferenceSet` (its nearest samples:
            of the contrast classes, with a non-target k of class k; the mean over them; of a
            :class:`~absence_plugins.MadeReferences` the input without its content, a blank), or a tensor that
            broadcasts to the input. For ``Absence*`` composites without one: zeros, where nothing missing can show.
        nontarget: explain instead of the output that ``attr_output`` names: "runner_up" (the highest other one),
            "others" (their mean), a class, one per sample [B], or ``f(outputs, target) -> [B]``; or "negated" (minus
            that output), "margin" (that output minus its runner-up), "target" (that output, as without the option).

    Raises:
        ValueError: when called: softmax outputs, an ``attr_output`` that names nothing (or several outputs where one is
            needed), references of another shape, a composite that compares with no reference.
        ConservationError: sum R is not u(x) - u(r).
    """

    reference: Reference
    nontarget: Nontarget | None
    composite: Any
    model: nn.Module

    def _configure(self, reference: Any, nontarget: Any) -> None:
        if reference is not None and not isinstance(reference, (ReferenceSet, Tensor)):
            raise TypeError(
                f"reference must be a ReferenceSet or a tensor, got {type(reference).__name__}; "
                "build one: ReferenceSet(images, labels)"
            )
        if self.composite is not None:
            check_heard(self.model, type(self).__name__)
        check_word(nontarget)
        check_rivals(nontarget, is_multi_label=isinstance(reference, ReferenceSet) and reference.is_multi_label)
        if isinstance(reference, ReferenceSet) and reference.is_tuple:
            raise ValueError("the ReferenceSet holds tuples of inputs, but Zennit attributes to one input")
        self.reference, self.nontarget = reference, nontarget
        self._undo: tuple[Callable[[], None], ...] = ()  # of the composite's registration
        self._block = ExitStack()
        name = type(self.composite).__name__.removeprefix("Absence")
        if (reference is not None or nontarget is not None) and name in REFUSALS and not self._needs_no_rules:
            raise ValueError(f"{name} cannot show absences: {REFUSALS[name]}")

    _needs_no_rules = False  # compares with the reference by itself
    _one_forward = False  # its algorithm is one forward, of the input itself

    # -- as Zennit ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Any:
        """Register the composite, whole or not at all."""
        with ExitStack() as stack:
            stack.enter_context(block_of(self.composite, self.model))
            with working_on(self.model):
                if self.composite is not None:
                    self._undo = (*self._undo, register_whole(self.composite, self.model))
                self._block.push(stack.pop_all())
        return self

    def __exit__(self, *error: Any) -> Any:
        """Remove the composite; the model is as before, whatever the canonizers left."""
        with working_with(self.composite, self.model), self._block:  # the block ends before the turn in it
            undo, self._undo = self._undo, ()
            remove_whole(partial(super().__exit__, *error), undo)  # type: ignore[misc]
        return False

    def forward(self, input: Tensor, attr_output_fn: OutputFunction) -> tuple[Tensor, Tensor]:
        """The output [B, ...] and the signed map of the input's shape: R > 0 raises the explained output."""
        with registered(self), self._root(attr_output_fn) as root:
            if root is None and self.reference is None and self.nontarget is None:
                with asking(self), explained_integers(input):
                    return super().forward(input, attr_output_fn)  # type: ignore[misc]
            output, explanation = self._collect(input, attr_output_fn, root, full=False)
        return output, explanation.attribution

    def explain(self, input: Tensor, attr_output: Any = None) -> Explanation:
        """As the call, but returns an :class:`~absence_plugins.zennit.Explanation`: both parts, every reference, the
        numbers.

        The parts are cut by content, which is measured from the ``empty`` of the ReferenceSet; with a tensor as
        reference from 0, so on inputs whose blank is another value (normalized ones) pass a ReferenceSet with
        ``empty=``.
        """
        given = self.attr_output_fn if attr_output is None else attr_output  # type: ignore[attr-defined]
        function = given if callable(given) else constant(given)
        with ExitStack() as stack:
            stack.enter_context(registered(self))
            root = stack.enter_context(self._root(function))
            return self._collect(input, function, root, full=True)[1]

    # -- the decisions --------------------------------------------------------------------------------------------

    @contextmanager
    def _root(self, attr_output_fn: OutputFunction) -> Iterator[RootHook | None]:
        """The hook that pairs x with a reference; put on for the call where only rules are there. None: no such
        rules.

        Unless the call is Zennit's own, a model that ends in a softmax or sigmoid returns its logits in the block.
        """
        with _with_gradients(), self._paired_root() as root, scores_only(self.model) as reading:
            asks = (root, self.reference, self.nontarget)
            reading.cuts = isinstance(attr_output_fn, NontargetOutput) or any(one is not None for one in asks)
            with ExitStack() as stack:
                # Zennit's own forward: the model may work in place on its input, a leaf
                if root is None and isinstance(self.model, nn.Module):
                    stack.enter_context(rewritten(self.model, Tensor.clone, side="input"))
                yield root
        announce(reading.ending, stacklevel=6)

    @contextmanager
    def _paired_root(self) -> Iterator[RootHook | None]:
        hooks = hooks_on(self.model)
        root = next(iter(of_thread([hook for hook in hooks if isinstance(hook, RootHook)], get_ident())), None)
        if root is not None or not any(isinstance(hook, AbsenceRule) for hook in hooks):
            yield root
            return
        root = Pair()
        root.is_for_one_call = True
        root.active = all(hook.active for hook in hooks)  # the rules may be inactive for now
        with hooking(self.model, [partial(root.register, self.model)]):
            yield root

    def _plan(self, input: Tensor, attr_output_fn: OutputFunction) -> Plan:
        x = input.detach().clone()
        with quiet_forward((x,)):
            with Draws((x,)) as draws:
                outputs = self.model(x.clone())  # the model may work in place on its input
            check_drawing(draws, self.model, x)
            if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != len(x):
                shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(f"the model must return one row of outputs per sample ({len(x)}), got {shape}")
            check_logits(outputs, lambda: self.model(*shrunk((x,))))
            weights = asked_weights(attr_output_fn, outputs)
            choice = None
            if self.nontarget is not None:
                weights, choice = chosen_weights(weights, outputs, self.nontarget)
        view: Literal["target", "nontarget"] = "target" if choice is None else choice.view
        check_values(weights, outputs)
        return Plan(x, outputs, weights, choice, view, self._draw(x, weights, choice))

    def _draw(self, x: Tensor, weights: Tensor, choice: Choice | None) -> list[Tensor | None]:
        """The references of every sample: of the non-target's class, else of the target's contrast."""
        if self.reference is None:
            return [None]
        if isinstance(self.reference, Tensor):
            return [expand_checked(self.reference, x)]
        classes, label = (None, None) if self._is_made else compared_classes(weights, choice)
        drawn = self.reference.nearest(x, classes, label=label)
        assert isinstance(drawn, Tensor)
        return list(drawn.unbind(1))

    @property
    def _is_made(self) -> bool:
        """Whether the references are the inputs themselves without their content."""
        return isinstance(self.reference, ReferenceSet) and self.reference.is_made

    # -- the maps -------------------------------------------------------------------------------------------------

    def _collect(
        self, input: Tensor, attr_output_fn: OutputFunction, root: RootHook | None, *, full: bool
    ) -> tuple[Tensor, Explanation]:
        """One map after the other, and their mean."""
        check_input(input)
        check_mode(self.model)
        if input.is_inference():
            input = input.clone()  # takes part in autograd
        self._check(root)
        maps: list[Tensor] = []
        values: list[Tensor | None] = []
        if self._one_forward and isinstance(root, Pair) and root.active and self._decides_nothing:
            plan, signed, output = self._at_once(input, attr_output_fn, root)
            maps.append(signed)
            values.append(plan.value(root.outputs[get_ident()][1]))
        else:
            plan = self._plan(input, attr_output_fn)
            output = plan.outputs
        input = input.clone()
        nearest = None
        for reference in plan.references[len(maps) :]:
            output, signed, value = self._one(input, plan, reference, root)
            is_paired = root is not None and root.active and not self._needs_no_rules
            if not maps and is_paired and isinstance(root, Pair) and isinstance(self.reference, ReferenceSet):
                nearest = root.outputs[get_ident()][1]
            maps.append(signed)
            values.append(value)
        attribution = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
        measured = None if values[0] is None else torch.stack([each for each in values if each is not None], 1)
        u = plan.value(plan.outputs)
        if measured is not None:
            step = warn_rounding(self.model, plan.x, plan.weights, plan.outputs, measured, 6 if full else 7)
        if measured is not None and not self._is_made:
            warn_unsuitable(plan.view, u, measured, 6 if full else 7)
            classes = named_classes(plan.weights) if plan.choice is None else None
            if nearest is not None and classes is not None:
                warn_alike(classes, nearest, 6 if full else 7)
        error = None
        if self._is_complete(root) and measured is not None:
            wide = torch.float32 if u.device.type == "mps" else torch.float64
            error = attribution.detach().reshape(len(u), -1).sum(1, dtype=wide) - (u - measured.mean(1)).to(wide)
            self._warn_incomplete(error, u - measured.mean(1), step)
        present, absent = self._parts(plan, maps) if full else (attribution, attribution)
        return output, Explanation(
            attribution=attribution,
            presence=present,
            absence=absent,
            view=plan.view,
            target=named_classes(plan.weights) if plan.choice is None else plan.choice.classes,
            nontarget=None if plan.choice is None else plan.choice.nontargets,
            output=u,
            reference_output=measured,
            per_reference=None if self.reference is None else torch.stack(maps, 1),
            completeness_error=error,
            explained=explained_output(plan.weights, plan.outputs, plan.choice) if full else None,
            **keep_compared(self.reference, plan.x, plan.drawn) if full else {},
        )

    def _check(self, root: RootHook | None) -> None:
        """Refuse a reference that nothing would be compared with."""
        if root is None and self.reference is not None:
            check_names(self.composite, self.model)
            name = "no composite" if self.composite is None else type(self.composite).__name__
            raise ValueError(
                f"{type(self).__name__} with {name} compares with no reference; pass composite=AbsenceEpsilonGamma(), "
                "or use AbsenceIntegratedGradients or AbsenceOcclusion"
            )

    def _one(
        self, input: Tensor, plan: Plan, reference: Tensor | None, root: RootHook | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Zennit's own algorithm against one reference: output, signed map, u(r)."""
        if root is None:
            return (*super().forward(input, self._seed(plan)), None)  # type: ignore[misc]
        with _paired(root, reference, quiet=self.reference is not None):
            output, signed = super().forward(input, constant(plan.weights))  # type: ignore[misc]
        if isinstance(root, Triple) or not root.active:
            return output, signed, None
        return output, signed, plan.value(root.outputs[get_ident()][1])

    @property
    def _decides_nothing(self) -> bool:
        """Whether neither non-target nor references have to be chosen before the map is made."""
        return self.nontarget is None and not isinstance(self.reference, ReferenceSet)

    def _at_once(self, input: Tensor, attr_output_fn: OutputFunction, root: Pair) -> tuple[Plan, Tensor, Tensor]:
        """Plan and map from the one forward of [x, r]: there is nothing to choose beforehand."""
        x = input.detach().clone()
        reference = expand_checked(self.reference, x) if isinstance(self.reference, Tensor) else None
        weights: list[Tensor] = []

        def asked(output: Tensor) -> Tensor:
            weights.append(asked_weights(attr_output_fn, output.detach()))
            return weights[0]

        with _paired(root, reference, quiet=self.reference is not None), Draws((x,)) as draws:
            output, signed = super().forward(input.clone(), asked)  # type: ignore[misc]
        check_drawing(draws, self.model, x)
        return Plan(x, root.outputs[get_ident()][0], weights[0], None, "target", [reference]), signed, output

    def _seed(self, plan: Plan) -> OutputFunction:
        """The seed that rules of Zennit's on the model need: the value for those that divide by outputs, else the
        weights.
        """
        return (
            (lambda output: weighted(plan.weights, output))
            if divides_by_outputs(self.model)
            else constant(plan.weights)
        )

    def _value_at(self, plan: Plan, reference: Tensor) -> Tensor:
        """u(r) of every sample [B]."""
        with quiet_forward((plan.x,)):
            return plan.value(self.model(reference))

    def _is_complete(self, root: RootHook | None) -> bool:
        return isinstance(root, Pair)

    def _warn_incomplete(self, error: Tensor, difference: Tensor, step: Tensor) -> None:
        """Nothing: the pair has checked every map."""

    def _parts(self, plan: Plan, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Evidence for what is there and for what is missing, both >= 0 (as in :class:`Explanation`)."""
        if self.reference is None or self._is_made:
            if plan.view == "target":
                raise ValueError(
                    "against a blank image the target's map shows only what is present; pass "
                    "reference=ReferenceSet(...), or a nontarget"
                )
            return split_by_sign(torch.stack(maps).mean(0))
        empty = self.reference.empty[0] if isinstance(self.reference, ReferenceSet) else torch.zeros(())
        blank = empty.to(plan.x).expand_as(plan.x)
        kind = self.reference.kind if isinstance(self.reference, ReferenceSet) else None
        pairs = [
            split_evidence(signed, plan.x, reference, blank, kind)
            for signed, reference in zip(maps, plan.references, strict=True)
            if reference is not None
        ]
        present, absent = (torch.stack(parts).mean(0) for parts in zip(*pairs, strict=True))
        if plan.view == "target":
            return sum_positive(present, kind), sum_positive(absent, kind)
        return sum_positive(torch.stack(maps).mean(0), kind), sum_positive(-present, kind)


@contextmanager
def _paired(root: RootHook, reference: Tensor | None, *, quiet: bool) -> Iterator[None]:
    """The root hook with this reference, and with weights taken literally, for one call in this thread."""
    before = root.questions.get(get_ident())
    root.questions[get_ident()] = Question(reference, takes_weights=True, is_quiet=quiet)
    try:
        yield
    finally:
        if before is None:
            del root.questions[get_ident()]
        else:
            root.questions[get_ident()] = before


@contextmanager
def _with_gradients() -> Iterator[None]:
    """In this block gradients are on, also inside ``torch.no_grad()`` and ``torch.inference_mode()``; models run as
    they are written.
    """
    with ExitStack() as stack:
        stack.enter_context(as_written())
        stack.enter_context(explained_running())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
