"""Models in bfloat16 and float16 through every adapter; where rounding hides the difference, one warning says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zennit_nets
from adapter_table import (
    ADAPTERS,
    STOCHASTIC,
    Net,
    arguments,
    build,
    has_target,
    images,
    references,
    seeded,
    settings_of,
)
from torch import Tensor, nn
from zennit.attribution import Gradient

import absence_plugins.captum as captum_adapters
import absence_plugins.zennit as zennit_adapters
from absence_plugins.core import AbsenceWarning
from absence_plugins.relevance import relevance

HALF = torch.bfloat16
QUICK = ("default", "both")
ROWS = [
    pytest.param(name, setting, marks=[] if setting in QUICK else pytest.mark.slow)
    for name in ADAPTERS
    for setting, _ in settings_of(name)
]
SINGLE = {"AbsenceLimeBase"}  # takes one sample


def captum_map(name: str, setting: str, dtype: torch.dtype) -> Tensor:
    """One class's map on the table's net in a type of numbers."""
    seeded()
    cls, samples = ADAPTERS[name], 1 if name in SINGLE else 2
    options = dict(settings_of(name))[setting]
    if "reference" in options:
        options = {**options, "reference": references(dtype=dtype)}
    call = arguments(cls, baselines=setting in ("default", "others"), dtype=dtype)
    if has_target(cls):
        call["target"] = torch.arange(samples) % 4
    found = build(cls, Net(dtype=dtype), **options).attribute(images(samples, dtype=dtype), **call)
    return found[0] if isinstance(found, (tuple, list)) else found  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "setting"), ROWS)
def test_every_captum_class_takes_bfloat16(name: str, setting: str) -> None:
    found = captum_map(name, setting, HALF)
    assert torch.isfinite(found).all()
    if name in STOCHASTIC and "GradientShap" not in name:
        return  # these draw other numbers in another type
    exact = captum_map(name, setting, torch.float64)
    assert zennit_nets.relative(found.double(), exact) <= 0.2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ADAPTERS if "GradientShap" in name])
def test_methods_that_draw_noise_keep_the_type(name: str) -> None:
    """Captum draws it in float32, which a model in half precision does not take."""
    for setting in ("default", "reference"):
        assert captum_map(name, setting, torch.float16).dtype == torch.float16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", zennit_nets.ATTRIBUTORS)
@pytest.mark.parametrize("composite", [*zennit_nets.OURS, None])
def test_every_composite_takes_bfloat16(composite: str | None, kind: str) -> None:
    if kind == "IntegratedGradients" and composite is not None:
        return  # takes no rules
    box = {"low": -4.0, "high": 4.0} if composite == "absence_epsilon_gamma_box" else {}
    few = {"Gradient": {}, "Occlusion": {"window": 4, "stride": 4}}.get(kind, {"n_iter": 3})
    rules = None if composite is None else zennit_nets.OURS[composite](**box)
    reference = (
        zennit_nets.images(1, seed=3, dtype=HALF) if composite or kind not in ("Gradient", "SmoothGrad") else None
    )
    nontarget: Any = None if reference is not None else "runner_up"
    attributor = getattr(zennit_adapters, f"Absence{kind}")(
        zennit_nets.conv_net(2, dtype=HALF), rules, **few, reference=reference, nontarget=nontarget
    )
    output, found = attributor(zennit_nets.images(2, dtype=HALF), zennit_nets.one(0, 0, dtype=HALF))
    assert output.dtype == found.dtype == HALF
    assert torch.isfinite(found).all()


def flat_net(dtype: torch.dtype) -> nn.Sequential:
    """Outputs of about 100, on which the input has an effect of about 0.1."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    net[2].weight.data *= 0.1
    net[2].bias.data[:] = torch.tensor([100.0, 101.0, 102.0])
    return net.to(dtype)


ENTRIES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "integrated gradients": lambda net, x: captum_adapters.AbsenceIntegratedGradients(net).attribute(x, target=0),
    "ablation": lambda net, x: captum_adapters.AbsenceFeatureAblation(net).attribute(x, target=0),
    "deeplift": lambda net, x: captum_adapters.AbsenceDeepLift(net).attribute(x, target=0),
    "deeplift, a margin": lambda net, x: captum_adapters.AbsenceDeepLift(net, nontarget="margin").attribute(
        x, target=0
    ),
    "a layer": lambda net, x: captum_adapters.AbsenceLayerConductance(net, net[0]).attribute(x, target=0),  # type: ignore[index]
    "zennit": lambda net, x: zennit_adapters.AbsenceGradient(
        net, zennit_adapters.AbsenceEpsilonGamma(), reference=torch.zeros_like(x[:1])
    )(x, torch.eye(3).to(x)[[0, 0]]),
    "zennit, integrated": lambda net, x: zennit_adapters.AbsenceIntegratedGradients(
        net, reference=torch.zeros_like(x[:1])
    )(x, torch.eye(3).to(x)[[0, 0]]),
    "relevance": lambda net, x: relevance(net, x, torch.zeros_like(x), output=0),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_below_the_resolution_is_said_once(entry: str) -> None:
    """In float32 nothing is said; in bfloat16 one warning with the remedy, instead of one on the number of steps."""
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    for dtype, expected in ((torch.float32, 0), (torch.bfloat16, 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ENTRIES[entry](flat_net(dtype), x.to(dtype))
        said = [str(one.message) for one in caught if issubclass(one.category, AbsenceWarning)]
        assert sum("below the resolution of bfloat16" in text and "model.float()" in text for text in said) == expected
        assert not any("too few" in text or "n_iter" in text for text in said)


def test_zennits_own_attributor_says_so_too() -> None:
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0)).to(HALF)
    with pytest.warns(AbsenceWarning, match="below the resolution of bfloat16"):
        Gradient(flat_net(HALF), zennit_adapters.AbsenceEpsilonGamma())(
            x, lambda output: output * torch.eye(3).to(x)[[0, 0]]
        )
