"""Zennit hooks for reference-relative rules: which share of an output's relevance each input difference gets.

They work in ``LayerMapComposite``, ``NameMapComposite`` and ``MixedComposite`` like Zennit's own, on a batch [x, r]
that :class:`~absence_plugins.zennit.AbsenceGradient` (or an ``Absence*`` composite) makes. The relevance of a
difference lies on x's half; that of r's half is zero.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import Hook, Stabilizer

from absence_plugins.core.pooling import scattered
from absence_plugins.zennit import shares
from absence_plugins.zennit.operators import operator_of, weight_of
from absence_plugins.zennit.pairing import Pair, Trace
from absence_plugins.zennit.propagation import Meet, Propagate


class AbsenceRule(Hook):
    """A hook that replaces a module's gradient by relevance of the difference between input and reference."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair | None = None
        self._entered: list[Tensor] = []

    def copy(self) -> AbsenceRule:
        """The hook of one module, made from this template."""
        clone = copy.copy(self)
        Hook.__init__(clone)
        clone.pair, clone._entered = None, []
        return clone

    def register(self, module: nn.Module) -> Any:
        """On one module; also again, after it was removed."""
        self.active = True
        return super().register(module)

    def remove(self) -> None:
        """Forget tensors and the pair; what is still in a graph passes the plain gradient, as with Zennit."""
        super().remove()
        self._entered.clear()
        self.pair, self.active = None, False

    def pre_forward(self, module: nn.Module, input: Any) -> Any:
        """Remember the input; a module that works in place gets a copy."""
        value = input[0] if isinstance(input, tuple) else input
        self._entered.append(value)
        if getattr(module, "inplace", False):
            return (value.clone(), *input[1:]) if isinstance(input, tuple) else value.clone()
        return None

    def post_forward(self, module: nn.Module, input: Any, output: Any) -> Any:
        """Put the rule between input and output."""
        value = self._entered.pop()
        if not (torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad):
            return output
        if self.pair is None:
            raise ValueError(
                f"{type(self).__name__} compares an input with a reference, and none was paired; use AbsenceGradient in place "
                "of Gradient, or an Absence composite"
            )
        if self.pair.trace is None:
            return output
        if not isinstance(output, Tensor):
            raise ValueError(f"{type(module).__name__} returns a {type(output).__name__}; rules need one tensor")
        return Propagate.apply(self, module, self.pair.trace, value, output)

    def relevance(self, module: Any, trace: Trace, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
        """From R of the output to R of the input.

        value, output: [2B, ...], x's half and r's; relevance: [B, ...] of the output. Returns [B, ...] of the input.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        names = [f"{key}={value!r}" for key, value in vars(self).items() if key in ("gamma", "alpha", "beta")]
        return f"{type(self).__name__}({', '.join(names)})"


class AbsencePass(AbsenceRule):
    """Pass: relevance goes through as it is. For activations and batch norm, which work on every value alone.

    R_in = R_out. Source: docs/from-zennit.md, step 3 (the upper rule has already shared out by a(x) - a(r)).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceEpsilon, AbsenceGradient
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -2.0]])
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceEpsilon()), (nn.ReLU, AbsencePass())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 1.0]]))[1]
    tensor([[ 3., -2.]])
    """

    def relevance(self, module: Any, trace: Trace, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
        """R_in = R_out."""
        return relevance.view_as(value.chunk(2)[0])


class _Weighted(AbsenceRule):
    """What the rules for linear layers share: the operator without bias, the stabilizer, the output layer."""

    def __init__(self, stabilizer: Any = 0.0, zero_params: Any = None, *, own_layer_epsilon: bool = False) -> None:
        super().__init__()
        self.stabilizer = None if stabilizer == 0 else Stabilizer.ensure(stabilizer)
        names = [zero_params] if isinstance(zero_params, str) else list(zero_params or [])
        if set(names) - {"bias"}:
            raise ValueError(
                f"zero_params={zero_params!r}: a bias cancels in the difference anyway, and without {sorted(set(names) - {'bias'})} "
                "nothing is left to share out; leave zero_params out"
            )
        self.own_layer_epsilon = own_layer_epsilon

    def relevance(self, module: Any, trace: Trace, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
        """The rule; Epsilon where this is the output layer of the explained unit and the composite asks for that."""
        (x, r), (u, v) = value.chunk(2), output.chunk(2)
        is_own = trace.is_own_layer()
        change = u - v
        by_epsilon = is_own and self.own_layer_epsilon
        if by_epsilon or isinstance(self, AbsenceEpsilon):  # the others do not divide by it
            change = torch.where(shares.is_rounding(change, u, v), 0.0, change)
        if by_epsilon:
            return shares.rescale(operator_of(module), weight_of(module), x - r, change, relevance)
        return self.share(module, trace, x - r, change, relevance)

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """The rule itself: da [B, ...] of the input, change and relevance [B, ...] of the output."""
        raise NotImplementedError

    def _absorb(self, trace: Trace, denominator: Tensor, relevance: Tensor) -> Tensor:
        """What the stabilizer leaves of the relevance; the check is told about the rest."""
        if self.stabilizer is None:
            return relevance
        left = relevance * shares.absorbing(self.stabilizer, denominator)
        trace.absorb(relevance - left)
        return left


class AbsenceEpsilon(_Weighted):
    """Epsilon: in proportion to the contributions. Equal to DeepLIFT's Rescale rule.

    R_i = sum_j w_ij da_i / (change_j + epsilon sign) R_j, da = a(x) - a(r).

    Source: Bach et al., PLoS ONE 2015, eq. 58, on differences (docs/from-zennit.md).

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
        super().__init__(epsilon, zero_params, own_layer_epsilon=False)

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """R_i = da_i sum_j w_ij R_j / change_j."""
        relevance = self._absorb(trace, change, relevance)
        return shares.rescale(operator_of(module), weight_of(module), da, change, relevance)


class AbsenceNorm(AbsenceEpsilon):
    """Norm: in proportion to the differences. For average pooling and sums, which have no weights.

    R_i = v_ij da_i / change_j R_j, v the pooling's own factors. Source: docs/from-zennit.md, step 3.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.AvgPool1d(2), nn.Flatten())
    >>> composite = LayerMapComposite([(nn.AvgPool1d, AbsenceNorm())])
    >>> AbsenceGradient(net, composite, reference=torch.tensor([[0.0, 1.0]]))(torch.tensor([[[5.0, 0.0]]]))[1]
    tensor([[[ 2.5000, -0.5000]]])
    """

    def __init__(self, stabilizer: Any = 0.0) -> None:
        super().__init__(stabilizer)

    def relevance(self, module: Any, trace: Trace, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
        """As Epsilon; pooling is never the output layer."""
        (x, r), (u, v) = value.chunk(2), output.chunk(2)
        return self.share(module, trace, x - r, u - v, relevance)


class AbsenceGamma(_Weighted):
    """Gamma: the contributions of the side that wins (raises, or lowers) count 1 + gamma times. Mirrored.

    R_i = sum_j ((1 + gamma) z+_ij - z-_ij) / ((1 + gamma) p_j - n_j) R_j where p_j >= n_j, plus and minus exchanged
    elsewhere. Source: Montavon et al. 2019, section 10.2, on differences and mirrored (docs/from-zennit.md).

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
        super().__init__(stabilizer, zero_params, own_layer_epsilon=own_layer_epsilon)
        if not gamma > 0:
            raise ValueError(f"gamma={gamma!r} must be above 0; gamma=0 is AbsenceEpsilon")
        self.gamma = gamma

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """The split by the rule's shares."""
        return _split(self, module, trace, da, change, relevance, shares.gamma_shares(self.gamma))


class AbsenceZPlus(_Weighted):
    """ZPlus: only the contributions of the side that wins count. Mirrored.

    R_i = sum_j z+_ij / p_j R_j where p_j >= n_j, z-_ij / n_j R_j elsewhere.
    Source: Montavon et al., Pattern Recognition 2017 (z+ rule), on differences and mirrored (docs/from-zennit.md).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceZPlus())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[4., 0.]])
    """

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """The split by the rule's shares."""
        return _split(self, module, trace, da, change, relevance, shares.zplus_shares)


class AbsenceAlphaBeta(_Weighted):
    """AlphaBeta: contributions of the winning side count alpha, of the other beta. Mirrored and adaptive.

    R_i = sum_j ((1 + beta_j) z+_ij / p_j - beta_j z-_ij / n_j) R_j, beta_j = min(n_j / (p_j - n_j), beta), where p_j >= n_j.
    The minimum keeps an output that hardly anything holds down from getting as much negative as positive relevance.
    Source: Bach et al., PLoS ONE 2015, eq. 60, on differences (docs/from-zennit.md).

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
        super().__init__(stabilizer, zero_params, own_layer_epsilon=own_layer_epsilon)
        if alpha < 0 or beta < 0 or abs(alpha - beta - 1) > 1e-12:
            raise ValueError(f"alpha={alpha!r} and beta={beta!r} must not be negative, and alpha - beta must be 1")
        self.alpha, self.beta = alpha, beta

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """The split by the rule's shares."""
        return _split(self, module, trace, da, change, relevance, shares.alpha_beta_shares(self.beta))


class AbsenceFlat(_Weighted):
    """Flat: every input of an output gets the same share, whatever it is. It blurs, over the layer's kernel.

    R_i = sum_j 1 / (number of inputs of j) R_j. Source: Lapuschkin et al., Nature Communications 2019.

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, -1.0]])  # contributions of the difference (3, 2): 6 and -2
    >>> composite = LayerMapComposite([(nn.Linear, AbsenceFlat())])
    >>> AbsenceGradient(net, composite, reference=torch.zeros(2))(torch.tensor([[3.0, 2.0]]))[1]
    tensor([[2., 2.]])
    """

    power = 0

    def share(self, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
        """R spread over the inputs by the magnitude of w to ``power``."""
        weight = weight_of(module)
        spread = weight if weight is None else (torch.ones_like(weight) if self.power == 0 else weight.square())
        relevance = self._absorb(trace, change, relevance)
        trace.has_spread = True
        return shares.spread(operator_of(module), spread, da, relevance)


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
    is higher on r and stands at i on r. Source: docs/from-zennit.md, step 3; DeepLIFT (Shrikumar et al., ICML 2017).

    >>> from zennit.composites import LayerMapComposite
    >>> from absence_plugins.zennit import AbsenceGradient
    >>> net = nn.Sequential(nn.MaxPool1d(2), nn.Flatten())
    >>> composite = LayerMapComposite([(nn.MaxPool1d, AbsenceMaxPool())])
    >>> AbsenceGradient(net, composite, reference=torch.tensor([[0.0, 1.0]]))(torch.tensor([[[5.0, 0.0]]]))[1]
    tensor([[[4., 0.]]])
    """

    def pre_forward(self, module: nn.Module, input: Any) -> Any:
        """The pooling works on a stand-in for its input, at which what belongs to x's and to r's winners meets."""
        super().pre_forward(module, input)
        value = input[0] if isinstance(input, tuple) else input
        if not (isinstance(value, Tensor) and value.requires_grad and self.pair is not None and self.pair.trace):
            return None
        return (Meet.apply(self, value), *input[1:]) if isinstance(input, tuple) else Meet.apply(self, value)

    def through_module(self, output: Tensor, relevance: Tensor) -> Tensor:
        """Everything to the side that has the larger maximum; the pooling's own backward knows the winners."""
        u, v = output.chunk(2)
        return torch.cat([relevance * (u > v), relevance * (u < v)])


class AbsenceReduction(AbsenceRule):
    """The reduction over space of a hidden unit (:class:`absence_plugins.Unit`): Norm, or the rule of max pooling.

    Already in every ``Absence*`` composite; for layer maps of one's own: ``(absence_plugins.core.units.Reduction, ...)``.

    >>> from absence_plugins import Unit
    >>> from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient
    >>> net = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[[2.0]]])
    >>> unit = Unit("1", 0).of(net)  # the mean of 2x over two places
    >>> AbsenceGradient(unit, AbsenceEpsilonGamma(), reference=torch.zeros(2))(torch.tensor([[[3.0, 1.0]]]))[1]
    tensor([[[3., 1.]]])
    """

    def relevance(self, module: Any, trace: Trace, value: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
        """By ``reduce`` of the unit. A minimum is the negated maximum of the negated values: the sides change places."""
        (x, r), (u, v) = value.chunk(2), output.chunk(2)
        if module.reduce in ("mean", "sum"):
            return shares.rescale(operator_of(module), None, x - r, u - v, relevance)
        rise, fall = relevance.masked_fill(u <= v, 0.0), relevance.masked_fill(u >= v, 0.0)
        amounts = torch.cat([rise, fall] if module.reduce == "max" else [fall, rise])
        winners = module.winners(value)[:, None, None]
        return scattered(winners, value[:, None], amounts[:, None, None])[:, 0]


def _split(
    rule: _Weighted, module: Any, trace: Trace, da: Tensor, change: Tensor, relevance: Tensor, by: shares.Shares
) -> Tensor:
    weight = weight_of(module)
    if weight is None:
        raise ValueError(
            f"{type(rule).__name__} needs a module with a weight, got {type(module).__name__}; use AbsenceNorm"
        )
    return shares.split(operator_of(module), weight, da, rule._absorb(trace, change, relevance), by)
