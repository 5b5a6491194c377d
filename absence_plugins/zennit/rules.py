"""Zennit hooks for reference-relative rules: which part of an output's relevance each input difference gets.

They work in ``LayerMapComposite``, ``NameMapComposite`` and ``MixedComposite`` like Zennit's own (with ``Absence`` in
front of these names under Zennit's attributors, too), and only name the redistribution in force for convolutions and
linear layers inside their module. Everything else has one exact relevance of differences, whether its module carries a
hook or not, or runs in no module at all (docs/relevance.md).
"""

from __future__ import annotations

import copy
import weakref
from threading import get_ident
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zennit.core import Hook, RemovableHandle, RemovableHandleList, Stabilizer

from absence_plugins.relevance.secants.redistribution import AlphaBeta, Gamma, Redistribution, Spread, Stabilized, ZPlus
from absence_plugins.zennit.damping import damped


class AbsenceRule(Hook):
    """A hook that names the rule in force inside a module, for relevance of the difference between input and reference.

    Attributes:
        redistribution: the rule of convolutions and linear layers called inside the module.
        own_layer_epsilon: Epsilon in its place where the layer is the output layer of the explained unit.
    """

    redistribution: Redistribution | Literal["epsilon"] = "epsilon"
    own_layer_epsilon = False

    def __init__(self) -> None:
        super().__init__()
        self.pairs: weakref.WeakSet[Any] = weakref.WeakSet()  # the root hooks that compare
        self.owner = get_ident()  # the thread that registered it

    def copy(self) -> AbsenceRule:
        """The hook of one module, made from this template."""
        return copy.copy(self)

    def __copy__(self) -> AbsenceRule:
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        AbsenceRule.__init__(clone)
        return clone

    def __deepcopy__(self, memo: Any) -> AbsenceRule:
        return copy.copy(self)  # settings do not change, and what belongs to a registration stays with it

    def register(self, module: nn.Module) -> Any:
        """On one module; also again, after it was removed."""
        self.active, self.owner = True, get_ident()
        return RemovableHandleList(
            [
                RemovableHandle(self),
                module.register_forward_pre_hook(self.pre_forward),  # Zennit's tests look for hooks there
                module.register_forward_hook(self.post_forward),
            ]
        )

    def remove(self) -> None:
        """Forget what belonged to the registration."""
        super().remove()
        self.pairs.clear()
        self.active = False

    def pre_forward(self, module: nn.Module, *_: Any) -> None:
        """Nothing: the rule is read by the hook on the root."""

    def post_forward(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Reject to be alone, as there is nothing to compare with. In other threads it may be on its way on or off."""
        is_alone = self.active and not self.pairs and self.owner == get_ident()
        wanted = any(isinstance(value, Tensor) and value.requires_grad for value in args)
        if is_alone and wanted and torch.is_grad_enabled():
            raise ValueError(
                f"{type(self).__name__} compares an input with a reference, and none was paired; use AbsenceGradient "
                "in place of Gradient, or an Absence composite (AbsenceLayerMapComposite in place of LayerMapComposite, "
                "AbsenceNameMapComposite, ...)"
            )

    def __repr__(self) -> str:
        names = [f"{key}={value!r}" for key, value in vars(self).items() if key in ("gamma", "alpha", "beta")]
        return f"{type(self).__name__}({', '.join(names)})"


class AbsencePass(AbsenceRule):
    """Pass: relevance goes through as it is, for activations and batch norm, which work on every value alone.

    R_in = R_out: m (f(a) - f(r)) / (a - r). It is the engine's for every operation, and Epsilon inside: the hook only
    says that no other rule is in force here. Source: docs/zennit-rules.md, step 3.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceEpsilon, AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceEpsilon()), (nn.ReLU, AbsencePass())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 1.0]]))[1]
    tensor([[ 3., -2.]])
    """


class _Weighted(AbsenceRule):
    """What the rules for linear layers share: the stabilizer, the unit's output layer."""

    def __init__(
        self, rule: Redistribution | None, stabilizer: Any, zero_params: Any, own_layer_epsilon: bool = False
    ) -> None:
        super().__init__()
        self.stabilizer = None if stabilizer == 0 else Stabilizer.ensure(stabilizer)
        names = [zero_params] if isinstance(zero_params, str) else list(zero_params or [])
        if set(names) - {"bias"}:
            raise ValueError(
                f"zero_params={zero_params!r}: a bias cancels in the difference anyway, and without "
                f"{sorted(set(names) - {'bias'})} nothing is left to share out; leave zero_params out"
            )
        self.own_layer_epsilon = own_layer_epsilon
        if self.stabilizer is not None:
            self.redistribution = Stabilized(rule, self.stabilizer)
        else:
            self.redistribution = "epsilon" if rule is None else rule


class AbsenceEpsilon(_Weighted):
    """Epsilon: in proportion to the contributions. Equal to DeepLIFT's Rescale rule.

    R_i = sum_j w_ij da_i / (change_j + epsilon sign) R_j, da = a(x) - a(r).

    Source: Bach et al., PLoS ONE 2015, eq. 58, on differences (docs/zennit-rules.md).

    Args:
        epsilon: what is added to the denominator, as upstream; 0 by default, since a difference of zero carries
            no relevance. A larger one absorbs relevance, of which the conservation check is told.
        zero_params: only "bias" means anything, and it cancels.
        own_layer_epsilon: of no effect here.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1)
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceEpsilon())])
    >>> AbsenceGradient(net, composite, reference=torch.tensor([1.0, 1.0]))(torch.tensor([[3.0, 0.0]]))[1]
    tensor([[2., 2.]])
    """

    def __init__(self, epsilon: Any = 0.0, zero_params: Any = None, *, own_layer_epsilon: bool = False) -> None:
        super().__init__(None, epsilon, zero_params)


class AbsenceNorm(AbsenceRule):
    """Norm: in proportion to the differences, for average pooling and sums, which have no weights.

    R_i = v_ij da_i / change_j R_j, v the pooling's own factors. It is the engine's for every linear operation; on
    anything else (a max pooling) the hook changes nothing. Source: docs/zennit-rules.md, step 3.

    Args:
        stabilizer: of the module's output; above 0 it absorbs relevance, of which the check of the sum is told.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.AvgPool1d(2), nn.Flatten())
    >>> composite = LayerMapComposite([(nn.AvgPool1d, AbsenceNorm())])
    >>> AbsenceGradient(net, composite, reference=torch.tensor([[0.0, 1.0]]))(torch.tensor([[[5.0, 0.0]]]))[1]
    tensor([[[ 2.5000, -0.5000]]])
    """

    def __init__(self, stabilizer: Any = 0.0) -> None:
        super().__init__()
        self.stabilizer = None if stabilizer == 0 else Stabilizer.ensure(stabilizer)

    def post_forward(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The output; with a stabilizer, behind an operation that absorbs relevance."""
        super().post_forward(module, args, output)
        if self.stabilizer is None or not (self.active and isinstance(output, Tensor) and output.requires_grad):
            return None
        return damped(output, self.stabilizer)


class AbsenceGamma(_Weighted):
    """Gamma: the contributions of the side that wins (raises, or lowers) count 1 + gamma times. Mirrored.

    R_i = sum_j ((1 + gamma) z+_ij - z-_ij) / ((1 + gamma) p_j - n_j) R_j where p_j >= n_j, plus and minus exchanged
    elsewhere. Source: Montavon et al. 2019, section 10.2, on differences and mirrored (docs/zennit-rules.md).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceGamma(1.0))])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[ 4.8000, -0.8000]])
    """

    def __init__(
        self, gamma: float = 0.25, stabilizer: Any = 0.0, zero_params: Any = None, *, own_layer_epsilon: bool = False
    ) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma={gamma!r} must be above 0; gamma=0 is AbsenceEpsilon")
        super().__init__(Gamma(gamma), stabilizer, zero_params, own_layer_epsilon)
        self.gamma = gamma


class AbsenceZBox(AbsenceGamma):
    """ZBox, for the first layer: Gamma in its place, with the same arguments.

    ZBox compares x with the lowest and highest values, z_ij = w_ij x_i - w+_ij low_i - w-_ij high_i. On a difference
    that would break R(x; r) = -R(r; x), as exchanging x and r leaves low and high where they are. Here x is compared
    with the reference, so ``low`` and ``high`` have no effect. Source: Montavon et al., Pattern Recognition 2017 (z^B
    rule); docs/zennit-rules.md.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceZBox(low=-3.0, high=3.0))])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]  # 1.25 * 6 and -2, of 5.5
    tensor([[ 5.4545, -1.4545]])
    """

    def __init__(
        self,
        low: Any = None,
        high: Any = None,
        stabilizer: Any = 0.0,
        zero_params: Any = None,
        *,
        gamma: float = 0.25,
        own_layer_epsilon: bool = False,
    ) -> None:
        super().__init__(gamma, stabilizer, zero_params, own_layer_epsilon=own_layer_epsilon)


class AbsenceZPlus(_Weighted):
    """ZPlus: only the contributions of the side that wins count. Mirrored.

    R_i = sum_j z+_ij / p_j R_j where p_j >= n_j, z-_ij / n_j R_j elsewhere.
    Source: Montavon et al., Pattern Recognition 2017 (z+ rule), on differences and mirrored (docs/zennit-rules.md).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceZPlus())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[4., 0.]])
    """

    def __init__(self, stabilizer: Any = 0.0, zero_params: Any = None, *, own_layer_epsilon: bool = False) -> None:
        super().__init__(ZPlus(), stabilizer, zero_params, own_layer_epsilon)


class AbsenceAlphaBeta(_Weighted):
    """AlphaBeta: contributions of the winning side count alpha, of the other beta. Mirrored and adaptive.

    R_i = sum_j ((1 + beta_j) z+_ij / p_j - beta_j z-_ij / n_j) R_j, beta_j = min(n_j / (p_j - n_j), beta), where p_j >=
    n_j.
    The minimum keeps an output that hardly anything holds down from getting as much negative as positive relevance.
    Source: Bach et al., PLoS ONE 2015, eq. 60, on differences (docs/zennit-rules.md).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceAlphaBeta(1.25, 0.25))])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[ 5., -1.]])
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 1.0,
        stabilizer: Any = 0.0,
        zero_params: Any = None,
        *,
        own_layer_epsilon: bool = False,
    ) -> None:
        if alpha < 0 or beta < 0 or abs(alpha - beta - 1) > 1e-12:
            raise ValueError(f"alpha={alpha!r} and beta={beta!r} must not be negative, and alpha - beta must be 1")
        super().__init__(AlphaBeta(beta), stabilizer, zero_params, own_layer_epsilon)
        self.alpha, self.beta = alpha, beta


class AbsenceFlat(_Weighted):
    """Flat: every input of an output gets the same share, whatever it is. It blurs, over the layer's kernel.

    R_i = sum_j 1 / (number of inputs of j) R_j, also where nothing differs: for the first layer only, anywhere else it
    is rejected. Source: Lapuschkin et al., Nature Communications 2019.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceFlat())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[2., 2.]])
    """

    power = 0

    def __init__(self, stabilizer: Any = 0.0, zero_params: Any = None, *, own_layer_epsilon: bool = False) -> None:
        super().__init__(Spread(self.power), stabilizer, zero_params, own_layer_epsilon)


class AbsenceWSquare(AbsenceFlat):
    """WSquare: shares by the square of the weights, whatever the inputs are. It blurs, over the layer's kernel.

    R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j. Source: Montavon et al., Pattern Recognition 2017 (w^2 rule).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceWSquare())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[3.2000, 0.8000]])
    """

    power = 2


class AbsenceMaxPool(AbsenceRule):
    """Max pooling: a rise of the maximum is due to x's winner, a fall to r's (winner takes all).

    R_i = sum of R_j over the windows whose maximum is higher on x and stands at i on x, and over those whose maximum
    is higher on r and stands at i on r. It is the engine's for every max pooling, with this hook or without. Source:
    docs/zennit-rules.md, step 3; DeepLIFT (Shrikumar et al., ICML 2017).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    >>> composite = LayerMapComposite([(nn.MaxPool1d, AbsenceMaxPool())])
    >>> AbsenceGradient(net, composite, reference=torch.tensor([[1.0, -1.0]]))(torch.tensor([[[5.0, 0.0]]]))[1]
    tensor([[[4., 0.]]])
    """


class AbsenceReduction(AbsenceRule):
    """The reduction over space of a hidden unit (:class:`absence_plugins.Unit`): Norm, or the rule of max pooling.

    It is right without a hook; this one is left so that layer maps written with it keep working.

    >>> from absence_plugins import Unit
    >>> from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient
    >>> net = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[[2.0]]])
    >>> unit = Unit("1", 0).of(net)  # the mean of 2x over two places
    >>> AbsenceGradient(unit, AbsenceEpsilonGamma(), reference=torch.zeros(2))(torch.tensor([[[3.0, 1.0]]]))[1]
    tensor([[[3., 1.]]])
    """
