"""Transposes of convolutions, by whatever kernel, are those of autograd; closed forms are those of a rule's parts."""

import itertools

import pytest
import torch

from absence_plugins.relevance.secants.arithmetic import quotient
from absence_plugins.relevance.secants.convolutions import convolution_operator
from absence_plugins.relevance.secants.redistribution import Gamma, ZPlus, mirrored, multiplier_coefficients

DEPTHWISE = [
    {"stride": s, "padding": p, "dilation": d, "groups": 4}
    for s, p, d in itertools.product((1, 2, 3, [2, 1]), (0, 1, (2, 1), 3), (1, 2))
]
OTHERS = [
    {"stride": 1, "padding": "same", "dilation": 2, "groups": 4},
    {"stride": 1, "padding": "valid", "dilation": (1, 2), "groups": 2},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 1},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (2, 2)])
@pytest.mark.parametrize("settings", [*DEPTHWISE, *OTHERS], ids=str)
def test_transpose_is_that_of_autograd(settings, kernel, dtype):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 4, 9, 8, dtype=dtype, generator=generator).requires_grad_()
    for outputs in (4, 8):
        w = torch.randn(outputs, 4 // settings["groups"], *kernel, dtype=dtype, generator=generator)
        operator = convolution_operator("conv2d", a.shape, w.shape[2:], settings)
        y = operator.forward(a, w)
        m = torch.randn(y.shape, dtype=dtype, generator=generator)
        (expected,) = torch.autograd.grad(y, a, m)
        torch.testing.assert_close(operator.transpose(m, w), expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pointwise_transpose_is_that_of_autograd(n):
    a = torch.randn(2, 3, *[4] * n).double().requires_grad_()
    w = torch.randn(5, 3, *[1] * n).double()
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    operator = convolution_operator(f"conv{n}d", a.shape, w.shape[2:], settings)
    y = operator.forward(a, w)
    m = torch.randn_like(y)
    torch.testing.assert_close(operator.transpose(m, w), torch.autograd.grad(y, a, m)[0])


@pytest.mark.parametrize("rule", [Gamma(), Gamma(3.0), ZPlus()], ids=str)
def test_closed_form_is_that_of_the_parts(rule):
    gross = torch.rand(200, dtype=torch.float64)
    change = gross * (2 * torch.rand(200, dtype=torch.float64) - 1)
    change[:3], gross[:2] = 0.0, 0.0
    ratio = quotient(change, gross)
    of_z, of_size = mirrored(rule, ratio, (gross > 0).double())
    found = multiplier_coefficients(rule, change, gross)
    torch.testing.assert_close(found, (of_z * ratio / 2, of_size * ratio / 2))
