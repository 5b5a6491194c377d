"""The losses of encoding-decoding direction pairs, each one a pure function.

Source: Doumanoglou et al., arXiv 2509.23926 (TMLR 2026). P positions, I detectors; leading axes ``...`` are
independent solutions (starts), so that many are trained at once. A detector's *logit* at a position is
``w_i . x_p - b_i``, its probability y = sigmoid(logit); q_p = y_p / sum_i y_pi; entropies are in bits. Every loss
is to be made small; none has units. All are differentiable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GAMMA, NU = 1.1, 4.0  # published: sharpen a probability, sharpen a soft maximum
_TINY = 1e-12


def log_shares(logits: Tensor, *, virtual: bool = False) -> tuple[Tensor, Tensor]:
    """log y and log q (natural) of logits [..., P, I]; with ``virtual`` a last column y_0 = prod_i (1 - y_i).

    Exact also where every probability underflows: q is the softmax of log y.
    """
    log_y = F.logsigmoid(logits)
    if virtual:
        log_y = torch.cat([log_y, F.logsigmoid(-logits).sum(-1, keepdim=True)], -1)
    return log_y, log_y.log_softmax(-1)


def position_entropy(log_q: Tensor) -> Tensor:
    """H(q_p) in bits: [..., P, I] -> [..., P]; 0 where one detector has it all."""
    return -(log_q.exp() * log_q).sum(-1) / math.log(2)


def sparsity(log_q: Tensor) -> Tensor:
    """L_s = E_p H(q_p): [..., P, I] -> [...]; small where one detector fires per position.

    >>> _, log_q = log_shares(torch.tensor([[0.0, 0.0]]))
    >>> sparsity(log_q)
    tensor(1.)
    """
    return position_entropy(log_q).mean(-1)


def sparsity_bound(log_q: Tensor) -> Tensor:
    """L_sb = R_SW{H(q_p)}: the soft maximum over positions, [..., P, I] -> [...]."""
    return self_weighted(position_entropy(log_q))


def max_activation(log_y: Tensor, log_q: Tensor) -> Tensor:
    """L_ma = -E_p sum_i q_pi log2 y_pi: [..., P, I] -> [...]; small where the detector that fires is sure.

    >>> max_activation(*log_shares(torch.tensor([[0.0, 0.0]])))
    tensor(1.)
    """
    return -(log_q.exp() * log_y).sum(-1).mean(-1) / math.log(2)


def inactive_classifier(y: Tensor, tau: float | Tensor) -> Tensor:
    """L_ic = E_i relu(t - E_p y_pi^g) / t with t = tau / I: [..., P, I] -> [...]; 0 where every detector is used.

    ``tau`` may differ between solutions, [...].

    >>> inactive_classifier(torch.tensor([[1.0, 0.0]]), tau=1.0)
    tensor(0.5000)
    """
    least = torch.as_tensor(tau, dtype=y.dtype, device=y.device)[..., None] / y.shape[-1]
    return ((least - _powered(y).mean(-2)).relu() / least).mean(-1)


def excessively_active(y: Tensor, rho: float) -> Tensor:
    """L_eac = R_SW{relu(E_p y_pi^g - rho) / (1 - rho)}: [..., P, I] -> [...]; 0 where no detector fires too often."""
    if not rho < 1:
        return y.new_zeros(y.shape[:-2])  # a bound of 1 or more holds for every detector
    return self_weighted((_powered(y).mean(-2) - rho).relu() / (1 - rho))


def max_margin(margins: Tensor) -> Tensor:
    """L_mm = E_i 1 / M_i, with w_i = v_i / M_i and |v_i| = 1: [..., I] -> [...]; small for wide margins."""
    return margins.reciprocal().mean(-1)


def self_weighted(values: Tensor) -> Tensor:
    """R_SW{L_k} = sum_k L_k^(nu+1) / sum_k L_k^nu, a soft maximum of values >= 0: [..., K] -> [...]; 0 if all are 0.

    >>> self_weighted(torch.tensor([1.0, 3.0]))
    tensor(2.9756)
    """
    # in units of the largest value, so that no power under- or overflows
    largest = values.detach().amax(-1, keepdim=True).clamp(min=_TINY)
    relative = values / largest
    weights = relative**NU
    return largest[..., 0] * (weights * relative).sum(-1) / weights.sum(-1).clamp(min=_TINY)


def filter_signal_orthogonality(decoding: Tensor, encoding: Tensor) -> Tensor:
    """L_fso = sqrt(mean_{i != j} (w_i . s_j)^2), both normalized: [..., D, I], [..., D, I] -> [...].

    Small where a detector does not react to another concept's signal.

    >>> filter_signal_orthogonality(torch.eye(2), torch.eye(2)) < 1e-5
    tensor(True)
    """
    products = F.normalize(decoding, dim=-2).transpose(-1, -2) @ F.normalize(encoding, dim=-2)
    count = products.shape[-1]
    others = 1 - torch.eye(count, dtype=products.dtype, device=products.device)
    # the tiny term keeps the root's gradient finite at 0
    return ((products**2 * others).sum((-1, -2)) / (count * (count - 1)) + _TINY).sqrt()


def uncertainty(logits: Tensor) -> Tensor:
    """L_ur = -E H(softmax(logits)) in bits, of the network's logits [..., N, K] -> [...]; small where it is undecided.

    >>> uncertainty(torch.zeros(1, 4))
    tensor(-2.)
    """
    log_p = logits.log_softmax(-1)
    return (log_p.exp() * log_p).sum(-1).mean(-1) / math.log(2)


def region_shift(logits: Tensor, decoding: Tensor, encoding: Tensor | None = None) -> Tensor:
    """The step dx whose removal puts x on the intersection of all detectors' hyperplanes: [..., P, I] -> [..., P, D].

    dx = (W^T)^+ (W^T x - b), the shortest one; with ``encoding`` S the one in the signals' span,
    dx = S (W^T S)^+ (W^T x - b). ``logits`` are W^T x - b; decoding W and encoding S are [..., D, I].

    >>> region_shift(torch.tensor([[2.0]]), torch.tensor([[2.0], [0.0]])).round(decimals=3)
    tensor([[1., 0.]])
    """
    span = decoding if encoding is None else encoding
    gram = decoding.transpose(-1, -2) @ span  # [..., I, I]
    # a ridge in place of the pseudo-inverse: parallel detectors have a gradient, too
    scale = torch.diagonal(gram.detach(), dim1=-2, dim2=-1).abs().amax(-1)[..., None, None].clamp(min=_TINY)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    inverse: Tensor
    if encoding is None:
        inverse = torch.linalg.inv(gram + 1e-5 * scale * eye)
    else:
        turned = gram.transpose(-1, -2)
        inverse = torch.linalg.inv(turned @ gram + 1e-6 * scale**2 * eye) @ turned
    shift: Tensor = logits @ (span @ inverse).transpose(-1, -2)
    return shift


def _powered(y: Tensor) -> Tensor:
    """y^g; the gradient at 0 is that of a tiny y, not NaN."""
    return y.clamp(min=_TINY).pow(GAMMA)
