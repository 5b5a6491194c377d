"""``Absence*`` attributors: Zennit's four, with references and non-targets (see
:mod:`absence_plugins.zennit.attributor`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from zennit.attribution import (
    Gradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    constant,
    occlude_independent,
)

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.choices import Nontarget
from absence_plugins.zennit.attributor import AbsenceAttributor, Reference
from absence_plugins.zennit.plan import Plan
from absence_plugins.zennit.root_hook import RootHook
from absence_plugins.zennit.scores import weighted

INCOMPLETE = 0.1  # of |u(x) - u(r)|: integrated gradients that miss more are announced


class AbsenceGradient(AbsenceAttributor, Gradient):
    """Zennit's Gradient: with an ``Absence*`` composite, relevance of the difference between input and reference.

    R sums to u(x) - u(r), which is checked after every call (:class:`ConservationError`).

    Shapes: input [B, ...]; returns the output [B, K, ...] and R of the input's shape, in units of u.
    Sign: R > 0, what differs there raises the explained output; R < 0 holds it down. Against references that have
    what x lacks, R > 0 where they have content and x has none is evidence for an encoded absence; for a non-target,
    R < 0 is content of x that holds it down.

    Arguments and errors: :class:`AbsenceAttributor`; ``create_graph``, ``retain_graph`` as upstream.
    Source: docs/from-zennit.md.

    >>> from absence_plugins.zennit import AbsenceEpsilonGamma
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> with AbsenceGradient(net, AbsenceEpsilonGamma(), reference=torch.tensor([1.0, 2.0])) as attributor:
    ...     output, relevance = attributor(torch.tensor([[1.0, 0.0]]), torch.eye(2)[[0]])
    >>> output, relevance
    (tensor([[1., 0.]], grad_fn=<_ComparedBackward>), tensor([[0., 2.]]))
    """

    _one_forward = True

    def __init__(
        self,
        model: nn.Module,
        composite: Any = None,
        attr_output: Any = None,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        *,
        reference: Reference = None,
        nontarget: Nontarget | None = None,
    ) -> None:
        Gradient.__init__(self, model, composite, attr_output, create_graph, retain_graph)
        self._configure(reference, nontarget)


class AbsenceSmoothGrad(AbsenceAttributor, SmoothGrad):
    """Zennit's SmoothGrad: the mean of AbsenceGradient's maps over noisy copies of the input.

    The explained output and the references are chosen once, on the real input. Noise is drawn as upstream, from
    torch's global generator; the last copy is without. Shapes, sign and errors as in :class:`AbsenceGradient`.

    Source: Smilkov et al. 2017.

    >>> from absence_plugins.zennit import AbsenceEpsilonGamma
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Linear(2, 1)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> attributor = AbsenceSmoothGrad(net, AbsenceEpsilonGamma(), n_iter=1, reference=torch.ones(2))
    >>> attributor(torch.tensor([[3.0, 0.0]]))[1]
    tensor([[2., 2.]])
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Any = None,
        attr_output: Any = None,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        noise_level: float = 0.1,
        n_iter: int = 20,
        *,
        reference: Reference = None,
        nontarget: Nontarget | None = None,
    ) -> None:
        SmoothGrad.__init__(self, model, composite, attr_output, create_graph, retain_graph, noise_level, n_iter)
        self._configure(reference, nontarget)

    def _is_complete(self, root: RootHook | None) -> bool:
        return False  # noisy copies have outputs of their own; each copy is checked


class AbsenceIntegratedGradients(AbsenceAttributor, IntegratedGradients):
    """Zennit's IntegratedGradients from the reference to the input; needs no composite, and no rules.

    R_i = (x_i - r_i) mean over the path of du/dx_i. It sums to u(x) - u(r) up to the coarseness of ``n_iter`` steps;
    more than 10 % off is announced. Sees units that are dead at x. Shapes and sign as in :class:`AbsenceGradient`.

    Raises:
        ValueError: as :class:`AbsenceAttributor`; ``baseline_fn`` and ``reference`` together; an ``Absence*``
            composite, whose relevance is a difference already and no gradient.

    Source: Sundararajan et al., ICML 2017, eq. 1.

    >>> net = nn.Linear(2, 1)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> AbsenceIntegratedGradients(net, reference=torch.ones(2))(torch.tensor([[3.0, 0.0]]))[1].round()
    tensor([[2., 2.]])
    """

    _needs_no_rules = True
    baseline_fn: Any

    def __init__(
        self,
        model: nn.Module,
        composite: Any = None,
        attr_output: Any = None,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        baseline_fn: Callable[[Tensor], Tensor] | None = None,
        n_iter: int = 20,
        *,
        reference: Reference = None,
        nontarget: Nontarget | None = None,
    ) -> None:
        if baseline_fn is not None and reference is not None:
            raise ValueError("baseline_fn and reference both say where the path begins; pass one of them")
        IntegratedGradients.__init__(
            self, model, composite, attr_output, create_graph, retain_graph, baseline_fn, n_iter
        )
        self._configure(reference, nontarget)

    def _check(self, root: RootHook | None) -> None:
        if root is not None:
            raise ValueError(
                "the relevance of an Absence composite is a difference already, and no gradient to integrate; use "
                "AbsenceGradient"
            )

    def _one(
        self, input: Tensor, plan: Plan, reference: Tensor | None, root: RootHook | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        start = self.baseline_fn(plan.x) if reference is None else reference
        before = self.baseline_fn
        self.baseline_fn = constant(start)
        try:
            output, signed = IntegratedGradients.forward(self, input, self._seed(plan))
        finally:
            self.baseline_fn = before
        return output, signed, self._value_at(plan, start)

    def _is_complete(self, root: RootHook | None) -> bool:
        return self.composite is None

    def _warn_incomplete(self, error: Tensor, difference: Tensor, step: Tensor) -> None:
        if bool((error.abs() > INCOMPLETE * difference.abs() + step + 1e-3).any()):
            warnings.warn(
                f"the integrated gradients miss up to {float(error.abs().max()):.2g} of u(x) - u(r); raise n_iter (now "
                f"{self.n_iter})",
                AbsenceWarning,
                stacklevel=7,
            )


class AbsenceOcclusion(AbsenceAttributor, Occlusion):
    """Zennit's Occlusion, as a difference: R of a window is u(x) - u(x with the window taken from the reference).

    Without a reference windows are blanked with zeros. The composite has no effect, as upstream. Where windows overlap
    (stride < window) their values add up, as upstream; R sums to nothing in particular. Sees units that are dead at x.
    Zennit's own Occlusion keeps the window and blanks the rest; a given ``occlusion_fn`` is left to do what it does,
    and then R is the plain score, as upstream.

    Shapes and sign as in :class:`AbsenceGradient`: R > 0, what x has in the window (in place of what r has) raises u.

    Raises:
        ValueError: as :class:`AbsenceAttributor`; ``occlusion_fn`` and ``reference`` together.

    Source: Zeiler and Fergus, ECCV 2014.

    >>> net = nn.Linear(2, 1)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> AbsenceOcclusion(net, window=1, stride=1, reference=torch.ones(2))(torch.tensor([[3.0, 0.0]]))[1]
    tensor([[2., 2.]])
    """

    _needs_no_rules = True
    occlusion_fn: Any

    def __init__(
        self,
        model: nn.Module,
        composite: Any = None,
        attr_output: Any = None,
        occlusion_fn: Callable[..., Tensor] | None = None,
        window: int | tuple[int, ...] = 8,
        stride: int | tuple[int, ...] = 8,
        *,
        reference: Reference = None,
        nontarget: Nontarget | None = None,
    ) -> None:
        if occlusion_fn is not None and reference is not None:
            raise ValueError("occlusion_fn and reference both say what a window is filled with; pass one of them")
        Occlusion.__init__(self, model, composite, attr_output, occlusion_fn, window, stride)
        self._configure(reference, nontarget)
        self._own_fill = occlusion_fn is not None

    def _check(self, root: RootHook | None) -> None:
        """Any composite will do: none is used."""

    def _one(
        self, input: Tensor, plan: Plan, reference: Tensor | None, root: RootHook | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        input = input.detach()  # no gradient is used; Zennit's hooks raise on inputs that ask for one
        if self._own_fill:
            return (*Occlusion.forward(self, input, lambda output: weighted(plan.weights, output)), None)
        fill = torch.zeros_like(plan.x) if reference is None else reference
        before = self.occlusion_fn
        self.occlusion_fn = partial(occlude_independent, fill_fn=constant(fill), invert=True)
        try:
            output, signed = Occlusion.forward(
                self, input, lambda output: weighted(plan.weights, plan.outputs - output)
            )
        finally:
            self.occlusion_fn = before
        return output, signed, self._value_at(plan, fill)

    def _is_complete(self, root: RootHook | None) -> bool:
        return False
