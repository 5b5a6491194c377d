"""How well detectors explain positions, without labels: the log-likelihood of independent strengths given presence."""

from __future__ import annotations

import torch
from torch import Tensor

RESOLUTION = 1e-3  # standard deviations; values that lie closer count as this far apart
FEWEST = 20  # values whose entropy is estimated


def log_likelihood(z: Tensor, w: Tensor, threshold: Tensor) -> float:
    """The mean log-likelihood of a position, up to a constant of z: z [P, R] whitened, w [R, I], threshold [I].

    The model: which detectors fire has any distribution, however correlated, unequal or overlapping concepts are; given
    that, the strengths u_i = w_i . z are independent. So

        log p = log det(W^T W) / 2 - H(pattern) - sum_i H(u_i | detector i fires or not),

    with H the entropies in nats. Detectors that mix concepts have strengths that depend on each other, and a lower
    likelihood. Rows of z have covariance 1; the coordinates outside the span of w count as normal.

    >>> z = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 12**0.5
    >>> half, right, mixed = torch.full((2,), 3**0.5), torch.eye(2), torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    >>> bool(log_likelihood(z, right, half) > log_likelihood(z, mixed, half) + 0.1)
    True
    """
    u = z @ w
    fires = u > threshold
    codes = fires.long() @ (2 ** torch.arange(fires.shape[1], device=z.device))
    counts = torch.bincount(codes)
    share = counts[counts > 0].double() / len(u)
    found = float(torch.logdet(w.double().T @ w.double())) / 2 + float((share * share.log()).sum())
    for values, on in zip(u.T, fires.T, strict=True):
        for some in (values[on], values[~on]):
            found -= len(some) / len(u) * estimate_entropy(some)
    return found


def estimate_entropy(values: Tensor) -> float:
    """The differential entropy of values [n], in nats, from the spacing of their order; 0 for fewer than 20.

    Source: Vasicek, Journal of the Royal Statistical Society B 38 (1976), inside the range of the values.

    >>> values = 2 * torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    >>> round(estimate_entropy(values), 1)  # uniform: log 2 = 0.69
    0.7
    """
    count = len(values)
    if count < FEWEST:
        return 0.0
    step = max(2, int(count**0.5))
    ordered = values.double().sort().values
    spacing = (ordered[step:] - ordered[:-step]).clamp(min=RESOLUTION * step / count)
    return float((spacing * (count + 1) / step).log().mean())
