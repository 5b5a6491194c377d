"""Zennit's composites for rules of one's own, with the hook on the root that compares input and reference.

Zennit's ``LayerMapComposite`` and its relatives only put hooks on modules, so ``Absence*`` rules in them need
:class:`~absence_plugins.zennit.AbsenceGradient`. These here work wherever Zennit's do: under Zennit's own attributors,
in ``composite.context(model)`` and after ``composite.register(model)``; the reference is then zeros, and a warning says
so.
"""

from __future__ import annotations

from torch import nn
from zennit.composites import (
    LayerMapComposite,
    MixedComposite,
    NameLayerMapComposite,
    NameMapComposite,
    SpecialFirstLayerMapComposite,
)

from absence_plugins.zennit.checks import check_names
from absence_plugins.zennit.composites import AbsenceComposite


class AbsenceLayerMapComposite(AbsenceComposite, LayerMapComposite):
    """Zennit's LayerMapComposite for ``Absence*`` rules: one rule for every module of a type.

    R sums to u(x) - u(r). R > 0: what differs there raises the explained output; R < 0: holds it down.

    Source: docs/from-zennit.md.

    Args:
        layer_map, canonizers: as upstream; the rules are ``Absence*`` rules.

    Raises:
        ValueError: on register: rules of Zennit's, which divide by values.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> from absence_plugins.zennit import AbsenceEpsilon
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = AbsenceLayerMapComposite([(nn.Linear, AbsenceEpsilon())])
    >>> Gradient(net, composite)(torch.tensor([[3.0, 1.0]]), torch.ones(1, 1))[1]
    tensor([[ 3., -2.]])
    """


class AbsenceSpecialFirstLayerMapComposite(AbsenceComposite, SpecialFirstLayerMapComposite):
    """Zennit's SpecialFirstLayerMapComposite for ``Absence*`` rules: another rule for the first layer of a type.

    R sums to u(x) - u(r). R > 0: what differs there raises the explained output; R < 0: holds it down.

    Source: docs/from-zennit.md.

    Args:
        layer_map, first_map, canonizers: as upstream; the rules are ``Absence*`` rules.

    Raises:
        ValueError: on register: rules of Zennit's, which divide by values.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> from absence_plugins.zennit import AbsenceEpsilon, AbsenceFlat
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> rules = [(nn.Linear, AbsenceEpsilon())]
    >>> composite = AbsenceSpecialFirstLayerMapComposite(rules, first_map=[(nn.Linear, AbsenceFlat())])
    >>> Gradient(net, composite)(torch.tensor([[3.0, 1.0]]), torch.ones(1, 1))[1]  # each half of 3 - 2
    tensor([[0.5000, 0.5000]])
    """


class AbsenceNameMapComposite(AbsenceComposite, NameMapComposite):
    """Zennit's NameMapComposite for ``Absence*`` rules: one rule for modules by their names.

    R sums to u(x) - u(r). R > 0: what differs there raises the explained output; R < 0: holds it down.

    Source: docs/from-zennit.md.

    Args:
        name_map, canonizers: as upstream; the rules are ``Absence*`` rules.

    Raises:
        ValueError: on register: no name is that of a module; rules of Zennit's, which divide by values.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> from absence_plugins.zennit import AbsenceEpsilon
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> Gradient(net, AbsenceNameMapComposite([(["0"], AbsenceEpsilon())]))(torch.tensor([[3.0, 1.0]]))[1]
    tensor([[ 3., -2.]])
    """

    def register(self, module: nn.Module) -> None:
        """As of every ``Absence*`` composite."""
        check_names(self, module)
        super().register(module)


class AbsenceMixedComposite(AbsenceComposite, MixedComposite):
    """Zennit's MixedComposite for ``Absence*`` rules: of several composites the first that has a rule for a module.

    R sums to u(x) - u(r). R > 0: what differs there raises the explained output; R < 0: holds it down.

    Source: docs/from-zennit.md.

    Args:
        composites, canonizers: as upstream; the composites are of ``Absence*`` rules.

    Raises:
        ValueError: on register: rules of Zennit's, which divide by values; AbsenceGuidedBackprop, which works alone.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = AbsenceMixedComposite([AbsenceNameMapComposite([(["0"], AbsenceEpsilon())]), AbsenceEpsilonGamma()])
    >>> Gradient(net, composite)(torch.tensor([[3.0, 1.0]]))[1]
    tensor([[ 3., -2.]])
    """

    def register(self, module: nn.Module) -> None:
        """As of every ``Absence*`` composite."""
        for part in self.composites:
            if isinstance(part, AbsenceComposite) and part._root_hook is not self._root_hook:
                raise ValueError(
                    f"{type(part).__name__} compares in a way of its own and cannot be mixed with other rules; use it alone"
                )
        super().register(module)


class AbsenceNameLayerMapComposite(AbsenceComposite, NameLayerMapComposite):
    """Zennit's NameLayerMapComposite for ``Absence*`` rules: by names first, then by types.

    R sums to u(x) - u(r). R > 0: what differs there raises the explained output; R < 0: holds it down.

    Source: docs/from-zennit.md.

    Args:
        name_map, layer_map, canonizers: as upstream; the rules are ``Absence*`` rules.

    Raises:
        ValueError: on register: rules of Zennit's, which divide by values.

    >>> import torch
    >>> from zennit.attribution import Gradient
    >>> from absence_plugins.zennit import AbsenceEpsilon, AbsenceZPlus
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = AbsenceNameLayerMapComposite([(["0"], AbsenceEpsilon())], [(nn.Linear, AbsenceZPlus())])
    >>> Gradient(net, composite)(torch.tensor([[3.0, 1.0]]))[1]
    tensor([[ 3., -2.]])
    """
