"""How the relevance of a difference is shared out among the differences that caused it: pure functions.

Everywhere da = a(x) - a(r) is the difference of a layer's inputs, z_ij = w_ij da_i the contribution of input i
to the difference of output j (no bias: it cancels), p_j the sum of the positive contributions and n_j that of the
magnitudes of the negative ones, so the output differs by p_j - n_j. A rule says which share of R_j input i gets;
the shares of an output sum to 1, so nothing is lost (docs/from-zennit.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor, Tensor | None], Tensor]  # (input, weight) -> output, linear in both, without bias
Shares = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Stabilizer = Callable[[Tensor], Tensor]

ROUNDING = 8  # output differences below so many units in the last place of the outputs are rounding, not differences


def quotient(numerator: Tensor | float, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0.

    >>> quotient(1.0, torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / denominator.masked_fill(zero, 1.0))


# -- the rules, for p >= n: the share of input i is plus * z+_ij - minus * z-_ij --------------------------------------
# With beta as in docs/from-zennit.md: plus = (1 + beta) / p, minus = beta / n. Written out, so that n = 0 is no
# special case.


def epsilon_shares(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Epsilon: beta = n / (p - n), every contribution counts with its sign (p > n)."""
    each = quotient(1.0, p - n)
    return each, each


def gamma_shares(gamma: float) -> Shares:
    """Gamma: beta = n / ((1 + gamma) p - n), the contributions of the larger side count 1 + gamma times."""

    def shares(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        each = quotient(1.0, (1 + gamma) * p - n)
        return (1 + gamma) * each, each

    return shares


def zplus_shares(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """ZPlus: beta = 0, only the contributions of the larger side count."""
    return quotient(1.0, p), torch.zeros_like(n)


def alpha_beta_shares(beta: float) -> Shares:
    """AlphaBeta with alpha = 1 + beta, adaptive: beta_j = min(n / (p - n), beta), never more than Epsilon's."""

    def shares(p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        exact, _ = epsilon_shares(p, n)
        capped = n > beta * (p - n)
        return torch.where(capped, quotient(1 + beta, p), exact), torch.where(capped, quotient(beta, n), exact)

    return shares


def mirrored(shares: Shares, total: Tensor, gross: Tensor) -> tuple[Tensor, Tensor]:
    """A rule for any p and n, plus and minus exchanged where p < n: R(x; r) = -R(r; x).

    total = p - n, gross = p + n: the sums of z and of abs(z). Returns the coefficients of z and of abs(z):
    share_ij = (of_z z_ij + of_size abs(z_ij)) / 2. Where p = n both sides get the same.

    >>> mirrored(zplus_shares, torch.tensor([3.0, -3.0]), torch.tensor([5.0, 5.0]))  # p, n = 4, 1 and 1, 4
    (tensor([ 0.2500, -0.2500]), tensor([0.2500, 0.2500]))
    """
    size = total.abs()
    more, less = shares((gross + size) / 2, ((gross - size) / 2).clamp(min=0))
    return total.sign() * (more + less), more - less


# -- from the relevance of a layer's output to that of its input ------------------------------------------------------


def rescale(operator: Operator, weight: Tensor | None, da: Tensor, change: Tensor, relevance: Tensor) -> Tensor:
    """Epsilon, Norm: R_i = da_i sum_j w_ij R_j / change_j, in proportion to the contributions (DeepLIFT's Rescale).

    ``change`` is the difference of the outputs themselves, the very number that the layer above took for its da:
    R_j / change_j is then its multiplier, bounded however small change_j is.
    """
    (given,) = backward([da], lambda a: [operator(a, weight)], lambda _: [quotient(relevance, change)])
    return da * given


def split(operator: Operator, weight: Tensor, da: Tensor, relevance: Tensor, shares: Shares) -> Tensor:
    """Gamma, ZPlus, AlphaBeta: R_i = sum_j (of_plus_j z+_ij + of_minus_j z-_ij) R_j.

    z+ and z- come from the sums of z and of abs(z), as z+ = (abs(z) + z) / 2: two passes through the operator, not four.
    """

    def cotangents(outputs: list[Tensor]) -> list[Tensor]:
        of_z, of_size = mirrored(shares, *outputs)
        return [of_z * relevance, of_size * relevance]

    signed, unsigned = backward(
        [da, da.abs()], lambda a, size: [operator(a, weight), operator(size, weight.abs())], cotangents
    )
    return (da * signed + da.abs() * unsigned) / 2


def spread(operator: Operator, weight: Tensor | None, like: Tensor, relevance: Tensor) -> Tensor:
    """Flat, WSquare: R_i = sum_j v_ij / sum_i v_ij R_j, with v = 1 or w^2; not a word about the activations."""
    ones = torch.ones_like(like)
    (given,) = backward([ones], lambda a: [operator(a, weight)], lambda outputs: [quotient(relevance, outputs[0])])
    return given


def backward(
    inputs: list[Tensor],
    forward: Callable[..., list[Tensor]],
    cotangents: Callable[[list[Tensor]], list[Tensor]],
) -> tuple[Tensor, ...]:
    """Outputs of linear maps, and their transposes applied to what is made of the outputs.

    Differentiable if gradients are enabled (``create_graph=True`` of the caller).
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [  # views, as one input may be computed from another: its gradient must not run through that one
            value.view_as(value) if keep and value.requires_grad else value.detach().clone().requires_grad_()
            for value in inputs
        ]
        outputs = forward(*inputs)
    given = cotangents(outputs if keep else [output.detach() for output in outputs])
    return torch.autograd.grad(outputs, inputs, given, create_graph=keep)


def is_rounding(change: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """Where two outputs differ by no more than rounding."""
    return change.abs() <= ROUNDING * torch.finfo(change.dtype).eps * torch.maximum(x.abs(), r.abs())


def absorbing(stabilizer: Stabilizer | None, denominator: Tensor) -> Tensor | float:
    """The share of the relevance that a stabilizer lets through: d / stabilizer(d), 1 without one."""
    return 1.0 if stabilizer is None else quotient(denominator, stabilizer(denominator))
