"""Vector-Jacobian products: the bits of torch.autograd.grad, without its import of sympy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from absence_plugins.core.pulling import pull_back


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_the_bits_are_those_of_torch(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x, w, unused = (torch.randn(4, 3, generator=draw).to(dtype).requires_grad_() for _ in range(3))
    outputs = [x @ w.T, (x * w).cumsum(0)]
    seeds = [torch.randn(output.shape, generator=draw).to(dtype) for output in outputs]
    seeds[0][0, 0], seeds[1][0, 0] = -0.0, torch.inf
    ours = pull_back(outputs, [x, w, unused], seeds, retain_graph=True)
    expected = torch.autograd.grad(outputs, [x, w, unused], seeds, allow_unused=True)
    assert ours[2] is None
    for one, other in zip(ours[:2], expected[:2], strict=True):
        assert one is not None
        assert torch.equal(torch.view_as_real(one) if one.is_complex() else one,
                           torch.view_as_real(other) if other.is_complex() else other) or bool(one.isnan().any())  # fmt: skip
        assert torch.equal(one.isnan(), other.isnan())


def test_seeds_made_in_inference_mode_and_calls_without_gradients() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    with torch.inference_mode():
        seed = torch.tensor([1.0, 2.0, 3.0])
    with torch.no_grad():
        (found,) = pull_back([y], [x], [seed])
    assert found is not None
    assert found.tolist() == [2.0, 4.0, 6.0]


def test_a_seed_of_another_shape_is_refused() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"a seed of shape \(1,\) for an output of shape \(3,\)"):
        pull_back([x * 2], [x], [torch.ones(1)])


@pytest.mark.skipif(torch.__version__ < "2.5", reason="this torch imports it by itself")
def test_relevance_does_not_import_sympy() -> None:
    words = (
        "import sys, torch\nfrom absence_plugins.relevance import relevance\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU6(), torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
        "relevance(net.eval(), torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), 1, rule='lower_gamma')\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
