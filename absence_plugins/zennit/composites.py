"""``Absence*`` composites: Zennit's composites, with every rule applied to the difference between input and reference.

A composite puts its rules on the modules and, on the root, the hook that compares x with a reference. Used with
Zennit's own attributors the reference is zeros; :class:`~absence_plugins.zennit.AbsenceGradient` brings real ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar, Literal

from torch import nn
from zennit.composites import (
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
    LayerMapComposite,
    SpecialFirstLayerMapComposite,
    register_composite,
)
from zennit.core import CompositeContext
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear, MaxPool

from absence_plugins.core.interrupts import undivided
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Reduction
from absence_plugins.zennit.guided import AbsenceReLUGuidedBackprop, Triple
from absence_plugins.zennit.pairing import Pair
from absence_plugins.zennit.registration import block_of, register_whole, remove_whole, working_with
from absence_plugins.zennit.root_hook import RootHook
from absence_plugins.zennit.rules import (
    AbsenceAlphaBeta,
    AbsenceEpsilon,
    AbsenceFlat,
    AbsenceGamma,
    AbsenceMaxPool,
    AbsenceNorm,
    AbsencePass,
    AbsenceReduction,
    AbsenceZPlus,
)
from absence_plugins.zennit.shown import ShownComposite

LayerMap = list[tuple[Any, Any]]


class AbsenceComposite(ShownComposite):
    """What all ``Absence*`` composites share: the root hook, and a registration that is whole or not at all."""

    _root_hook: ClassVar[type[RootHook]] = Pair
    _undo: tuple[Callable[[], None], ...] = ()  # of what is registered
    _on: tuple[weakref.ref[nn.Module], ...] = ()  # where

    @undivided
    def register(self, module: nn.Module) -> None:
        """Canonizers, rules on the modules, and the root hook. Raises as they do, with nothing left behind.

        Raises:
            ValueError: the model carries rules of Zennit's, which divide by values.
        """
        with working_on(module):
            self._undo = (*self._undo, register_whole(super(), module))
            root = self._root_hook()
            try:
                handle = root.register(module)
            except BaseException:
                self.remove()
                raise
            self.handles.append(handle)  # type: ignore[attr-defined]
            self.hook_refs.add(root)  # type: ignore[attr-defined]
            self._on = (*self._on, weakref.ref(module))

    def context(self, module: nn.Module) -> Any:
        """As upstream; Ctrl-C at any point of the block takes everything off."""
        return _Context(module, self)

    def remove(self) -> None:
        """Take everything off; the model's parameters, buffers and attributes are as before ``register``."""
        undo, self._undo = self._undo, ()
        modules, self._on = [module for one in self._on if (module := one()) is not None], ()
        with working_on(*modules, guest_of=self):
            remove_whole(super().remove, undo)  # type: ignore[misc]


class _Context(CompositeContext):
    def __enter__(self) -> Any:
        with ExitStack() as stack:
            stack.enter_context(block_of(self.composite, self.module))
            module = super().__enter__()
            self._block = stack.pop_all()
        return module

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        with working_with(self.composite, self.module), self._block:  # the block ends before the turn in it
            super().__exit__(kind, error, trace)
        return False


def shared_map(stabilizer: Any) -> LayerMap:
    """The rules that all composites share, in place of ``zennit.composites.layer_map_base``."""
    return [
        (Activation, AbsencePass()),
        (Sum, AbsenceNorm(stabilizer=stabilizer)),
        (AvgPool, AbsenceNorm(stabilizer=stabilizer)),
        (nn.Upsample, AbsenceNorm(stabilizer=stabilizer)),
        (MaxPool, AbsenceMaxPool()),
        (BatchNorm, AbsencePass()),
        (Reduction, AbsenceReduction()),
    ]


@register_composite("absence_epsilon_gamma")
class AbsenceEpsilonGamma(AbsenceComposite, LayerMapComposite):
    """Gamma for convolutions, Epsilon for dense layers and the unit's own: the recommended default.

    R against a reference r sums to u(x) - u(r). R > 0: what differs there raises the explained output; with real
    references that have what x lacks, that is evidence for an absence where they have content and x has none.
    R < 0: what differs there holds it down.

    Source: docs/from-zennit.md; Gamma: Montavon et al. 2019.

    Args:
        epsilon: stabilizer of Epsilon, 0 by default (see :class:`AbsenceEpsilon`).
        gamma: how much more the contributions of the side that wins count.
        stabilizer: of all other rules, 0 by default.
        layer_map: pairs of module types and hooks, put before the composite's own.
        zero_params: only "bias" means anything, and it cancels.
        canonizers: as upstream; none is needed.

    Raises:
        ValueError: gamma is not above 0, a ``zero_params`` but "bias"; when called: training mode.
        ConservationError: when called: an operation without an exact relevance of differences, or lost relevance.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonGamma(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[0., 2.]])
    """

    def __init__(
        self,
        epsilon: Any = 0.0,
        gamma: float = 0.25,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceGamma(gamma, stabilizer, zero_params, own_layer_epsilon=True)
        super().__init__(_with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params), canonizers=canonizers)


@register_composite("absence_epsilon_plus")
class AbsenceEpsilonPlus(AbsenceComposite, EpsilonPlus):
    """Zennit's EpsilonPlus on differences: mirrored ZPlus for convolutions, Epsilon for dense layers.

    Arguments, sign and errors as in :class:`AbsenceEpsilonGamma`. ZPlus gives everything to the side that wins: what
    speaks against it in the same layer does not show.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonPlus(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[0.5000, 2.0000]])
    """

    def __init__(
        self,
        epsilon: Any = 0.0,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceZPlus(stabilizer, zero_params, own_layer_epsilon=True)
        rules = _with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params)
        LayerMapComposite.__init__(self, rules, canonizers=canonizers)


@register_composite("absence_epsilon_alpha2_beta1")
class AbsenceEpsilonAlpha2Beta1(AbsenceComposite, EpsilonAlpha2Beta1):
    """Zennit's EpsilonAlpha2Beta1 on differences: mirrored adaptive AlphaBeta(2, 1) for convolutions.

    Arguments, sign and errors as in :class:`AbsenceEpsilonGamma`.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonAlpha2Beta1(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[0.5000, 2.0000]])
    """

    def __init__(
        self,
        epsilon: Any = 0.0,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceAlphaBeta(2, 1, stabilizer, zero_params, own_layer_epsilon=True)
        rules = _with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params)
        LayerMapComposite.__init__(self, rules, canonizers=canonizers)


@register_composite("absence_epsilon_plus_flat")
class AbsenceEpsilonPlusFlat(AbsenceComposite, EpsilonPlusFlat):
    """Zennit's EpsilonPlusFlat on differences: as AbsenceEpsilonPlus, with Flat in the first layer, which blurs.

    ``first_map``: as ``layer_map``, for the first layer. The rest as in :class:`AbsenceEpsilonGamma`.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonPlusFlat(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[1.2500, 1.2500]])
    """

    def __init__(
        self,
        epsilon: Any = 0.0,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceZPlus(stabilizer, zero_params, own_layer_epsilon=True)
        rules = _with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params)
        first = [*(first_map or []), (Linear, AbsenceFlat(stabilizer, zero_params, own_layer_epsilon=True))]
        SpecialFirstLayerMapComposite.__init__(self, rules, first, canonizers=canonizers)


@register_composite("absence_epsilon_alpha2_beta1_flat")
class AbsenceEpsilonAlpha2Beta1Flat(AbsenceComposite, EpsilonAlpha2Beta1Flat):
    """Zennit's EpsilonAlpha2Beta1Flat on differences: as AbsenceEpsilonAlpha2Beta1, with Flat in the first layer.

    ``first_map``: as ``layer_map``, for the first layer. The rest as in :class:`AbsenceEpsilonGamma`.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonAlpha2Beta1Flat(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[1.2500, 1.2500]])
    """

    def __init__(
        self,
        epsilon: Any = 0.0,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceAlphaBeta(2, 1, stabilizer, zero_params, own_layer_epsilon=True)
        rules = _with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params)
        first = [*(first_map or []), (Linear, AbsenceFlat(stabilizer, zero_params, own_layer_epsilon=True))]
        SpecialFirstLayerMapComposite.__init__(self, rules, first, canonizers=canonizers)


@register_composite("absence_epsilon_gamma_box")
class AbsenceEpsilonGammaBox(AbsenceComposite, EpsilonGammaBox):
    """Zennit's EpsilonGammaBox on differences: Gamma also in the first layer, where ZBox would break the symmetry.

    ``low`` and ``high`` are taken so that the call stays as it is, and have no effect: ZBox compares x with the lowest
    and highest pixels, here it is compared with the reference. The rest as in :class:`AbsenceEpsilonGamma`.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceEpsilonGammaBox(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[0.5000, 2.0000]])
    """

    def __init__(
        self,
        low: Any = None,
        high: Any = None,
        epsilon: Any = 0.0,
        gamma: float = 0.25,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        first_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceGamma(gamma, stabilizer, zero_params, own_layer_epsilon=True)
        rules = _with_epsilon(layer_map, rule, epsilon, stabilizer, zero_params)
        first = [*(first_map or []), (Convolution, rule)]
        SpecialFirstLayerMapComposite.__init__(self, rules, first, canonizers=canonizers)


@register_composite("absence_excitation_backprop")
class AbsenceExcitationBackprop(AbsenceComposite, ExcitationBackprop):
    """Zennit's ExcitationBackprop on differences: mirrored ZPlus everywhere, Epsilon in the unit's output layer.

    Arguments, sign and errors as in :class:`AbsenceEpsilonGamma`. Without Epsilon in the output layer, whichever side
    wins there would hide the other altogether.

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> x, has_x1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 2.0]])
    >>> AbsenceGradient(net, AbsenceExcitationBackprop(), reference=has_x1)(x, torch.eye(2)[[0]])[1]
    tensor([[0.5000, 2.0000]])
    """

    def __init__(
        self,
        stabilizer: Any = 0.0,
        layer_map: LayerMap | None = None,
        zero_params: Any = None,
        canonizers: list[Any] | None = None,
    ) -> None:
        rule = AbsenceZPlus(stabilizer, zero_params, own_layer_epsilon=True)
        rules = [*(layer_map or []), *shared_map(stabilizer), (Linear, rule)]
        LayerMapComposite.__init__(self, rules, canonizers=canonizers)


@register_composite("absence_guided_backprop")
class AbsenceGuidedBackprop(AbsenceComposite, GuidedBackprop):
    """Zennit's GuidedBackprop, two-sided and times the input: R > 0 raises the output, R < 0 holds it down.

    R = (x - r) * (guided(u) - guided(-u) - what passes no ReLU); r is the reference, or 0. Local: units that are dead
    at x show nothing, evidence that passes two inverting ReLUs neither, and R does not sum to anything; it warns.

    Source: Springenberg et al., ICLR workshop 2015, made two-sided (docs/from-captum.md).

    >>> import torch
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
    >>> AbsenceGradient(net, AbsenceGuidedBackprop())(torch.tensor([[1.0, 2.0]]), torch.eye(2)[[0]])[1]
    tensor([[ 1., -2.]])
    """

    _root_hook = Triple

    def __init__(self, layer_map: LayerMap | None = None, canonizers: list[Any] | None = None) -> None:
        rules = [*(layer_map or []), (nn.ReLU, AbsenceReLUGuidedBackprop())]
        LayerMapComposite.__init__(self, rules, canonizers=canonizers)


def _with_epsilon(layer_map: LayerMap | None, rule: Any, epsilon: Any, stabilizer: Any, zero_params: Any) -> LayerMap:
    """The user's map, the shared one, the composite's rule for convolutions and Epsilon for dense layers."""
    return [
        *(layer_map or []),
        *shared_map(stabilizer),
        (Convolution, rule),
        (nn.Linear, AbsenceEpsilon(epsilon, zero_params)),
    ]
