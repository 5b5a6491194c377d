"""The rules of docs/zennit-rules.md a second time: slow loops over dense matrices, in float64. `import zennit_algebra`.

The matrix of a layer comes from pushing unit vectors through it. Nothing of ``absence_plugins`` is imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Beta = Callable[[float, float], float]  # (p, n) -> beta, for p >= n


def alpha_beta(cap: float) -> Beta:
    """As in docs/zennit-rules.md: min(n / (p - n), cap); p = n is the limit, the cap."""
    return lambda p, n: min(n / (p - n), cap) if p > n else cap


BETAS: dict[str, Beta] = {
    "epsilon": lambda p, n: n / (p - n),
    "gamma": lambda p, n: n / (1.25 * p - n),
    "gamma 3": lambda p, n: n / (4.0 * p - n),
    "zplus": lambda p, n: 0.0,
    "alpha 2 beta 1": alpha_beta(1.0),
    "alpha 1 beta 0": alpha_beta(0.0),
    "alpha 3 beta 2": alpha_beta(2.0),
}


def shared_out(contributions: list[float], relevance: float, beta_of: Beta) -> list[float]:
    """One output's relevance among its inputs: (1 + beta) z+/p - beta z-/n, plus and minus exchanged where p < n."""
    p = sum(z for z in contributions if z > 0)
    n = -sum(z for z in contributions if z < 0)
    if p == n:
        assert relevance == 0
        return [0.0] * len(contributions)
    if p < n:
        return shared_out([-z for z in contributions], relevance, beta_of)
    beta = beta_of(p, n)
    shares = [(1 + beta) * max(z, 0) / p - (beta * max(-z, 0) / n if n else 0.0) for z in contributions]
    assert sum(shares) == pytest.approx(1, abs=1e-8)
    return [share * relevance for share in shares]


def matrix(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """[outputs, inputs] of a module that is linear up to a bias."""
    size = int(torch.tensor(shape).prod())
    with torch.no_grad():
        zero = module(torch.zeros(1, *shape).double()).flatten()
        columns = [module(row.reshape(1, *shape)).flatten() - zero for row in torch.eye(size).double()]
    return torch.stack(columns, 1)


def with_weights(module: Any, change: Callable[[Tensor], Tensor]) -> nn.Module:
    changed: Any = copy.deepcopy(module)
    changed.weight.data = change(changed.weight.data)
    return changed  # type: ignore[no-any-return]


def taps(module: Any, shape: tuple[int, ...], rule: str) -> list[Tensor]:
    """Matrices whose entries say how inputs reach outputs; their sum is the layer's.

    Two, of the positive and of the negative weights: where padding reflects, an input reaches one output through
    several weights, and each of them is a contribution of its own (as in Zennit, which clamps weights).
    """
    if rule in ("flat", "wsquare"):
        return [matrix(with_weights(module, torch.ones_like if rule == "flat" else torch.square), shape)]
    if not hasattr(module, "weight"):
        return [matrix(module, shape)]
    return [
        matrix(with_weights(module, lambda w: w.clamp(min=0)), shape),
        matrix(with_weights(module, lambda w: w.clamp(max=0)), shape),
    ]


def linear(module: nn.Module, x: Tensor, r: Tensor, seed: Tensor, rule: str) -> Tensor:
    """R of a linear layer's inputs [B, ...] given that of its outputs, sample by sample, output by output."""
    matrices = taps(module, tuple(x.shape[1:]), rule)
    rows = torch.cat(matrices, 1).tolist()  # inputs once per matrix
    maps = []
    for own, other, relevance in zip(
        x.flatten(1).tolist(), r.flatten(1).tolist(), seed.flatten(1).tolist(), strict=True
    ):
        given = [0.0] * len(own)
        differences = [a - b for a, b in zip(own, other, strict=True)] * len(matrices)
        for row, amount in zip(rows, relevance, strict=True):
            if amount == 0:  # also an output that no input reaches (output_padding)
                continue
            if rule in ("flat", "wsquare"):
                total = sum(row)
                shared = [weight / total * amount for weight in row]
            else:
                contributions = [weight * difference for weight, difference in zip(row, differences, strict=True)]
                shared = shared_out(contributions, amount, BETAS[rule])
            for index, share in enumerate(shared):
                given[index % len(own)] += share
        maps.append(given)
    return torch.tensor(maps, dtype=x.dtype).reshape(x.shape)


def window(pool: Any, place: tuple[int, ...], size: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The input positions that a position of the pooling's output looks at."""
    axes = []
    for axis, (at, length, outputs) in enumerate(zip(place, size, out, strict=True)):
        if "Adaptive" in type(pool).__name__:
            axes.append(list(range(at * length // outputs, -(-(at + 1) * length // outputs))))
            continue
        kernel, stride, padding, dilation = (
            value if isinstance(value, int) else value[axis]
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        reached = [at * stride - padding + step * dilation for step in range(kernel)]
        axes.append([position for position in reached if 0 <= position < length])
    return list(product(*axes))


def max_pool(pool: Any, x: Tensor, r: Tensor, seed: Tensor) -> Tensor:
    """Everything to the winner of the side whose maximum is larger."""
    given = torch.zeros_like(x)
    for sample, channel in product(range(len(x)), range(x.shape[1])):
        own, other, relevance = x[sample, channel], r[sample, channel], seed[sample, channel]
        for place in product(*map(range, relevance.shape)):
            seen = window(pool, place, tuple(own.shape), tuple(relevance.shape))
            of_x, of_r = max(seen, key=own.__getitem__), max(seen, key=other.__getitem__)
            if own[of_x] != other[of_r]:
                winner = of_x if own[of_x] > other[of_r] else of_r
                given[(sample, channel, *winner)] += relevance[place]
    return given


class Network:
    """Relevance of a whole network, layer by layer: ``rule_of(name, module)`` names each layer's rule.

    "pass" and "max" beside the linear ones; "none" for layers that only reshape.
    """

    def __init__(self, net: nn.Module, rule_of: Callable[[str, nn.Module], str]) -> None:
        self.net, self.rule_of = net, rule_of

    def relevance(self, x: Tensor, r: Tensor, weights: Tensor) -> Tensor:
        """R [B, ...] of the inputs for the weighted sum of outputs."""
        with torch.no_grad():
            seed = weights * (self.net(x) - self.net(r))
            return self._down("", self.net, x, r, seed)

    def _down(self, name: str, module: nn.Module, x: Tensor, r: Tensor, seed: Tensor) -> Tensor:
        if isinstance(module, nn.Sequential):
            values = [(x, r)]
            for child in module:
                values.append(tuple(copy.deepcopy(child)(value.clone()) for value in values[-1]))  # type: ignore[arg-type]
            for (label, child), (own, other) in reversed(list(zip(module.named_children(), values, strict=False))):
                seed = self._down(f"{name}.{label}".strip("."), child, own, other, seed)
            return seed
        if hasattr(module, "body"):  # x + body(x): in proportion to the differences of the two
            through, beside = module.body(x) - module.body(r), x - r
            total = torch.where(through + beside == 0, 1.0, through + beside)
            return seed * beside / total + self._down(f"{name}.body", module.body, x, r, seed * through / total)
        rule = self.rule_of(name, module)
        if rule in ("pass", "none"):
            return seed.reshape(x.shape)
        return max_pool(module, x, r, seed) if rule == "max" else linear(module, x, r, seed, rule)
