"""Ctrl-C in a call of any adapter, and several threads on one model: the model is as before, the results are right."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from lucent.optvis import param
from torch import Tensor, nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus

import absence_plugins.captum as captum_side
import absence_plugins.zennit as zennit_side
from absence_plugins import ReferenceSet, Unit
from absence_plugins.core.replacing import replacing
from absence_plugins.lucent import render_vis, unit_values
from absence_plugins.methods.debias import AttributionPrior
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance

sys.path.insert(0, str(Path(__file__).parent.parent))
from interrupting import interrupt_everywhere, python_handles_ctrl_c

pytestmark = pytest.mark.filterwarnings("ignore")
TARGET = torch.eye(3)[[0]]


@pytest.fixture(autouse=True)
def _handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with python_handles_ctrl_c(monkeypatch):
        yield


class Gate(nn.Module):
    """Holds the first thread that comes, until the other one is done or 0.1 s have passed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.came, self.done, self.was_alone = None, threading.Event(), threading.Event(), True

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            self.first = threading.get_ident()
            self.came.set()
            self.was_alone = not self.done.wait(0.1)
        return x


def make_net(first: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        first or nn.Identity(),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )
    net = nn.Sequential(*layers).eval()
    net[2].running_mean.normal_()
    return net


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
R = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))
REFERENCES = ReferenceSet(R, torch.arange(12) % 3, k=2)
SMALL = {"thresholds": (1,), "preprocess": False, "transforms": [], "fixed_image_size": 8, "seed": 0, "progress": False}


def in_context(net: nn.Module, x: Tensor) -> Tensor:
    """A composite on the model, and the user's own gradient."""
    with zennit_side.AbsenceEpsilonGamma().context(net) as model:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)[0]


def merged(net: nn.Module, x: Tensor) -> Tensor:
    """Canonizers change the weights, and put them back."""
    composite = EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])
    with zennit_side.AbsenceGradient(net, composite, TARGET.expand(len(x), 3)) as attributor:
        return attributor(x)[1]  # type: ignore[no-any-return]


def changed_layer(net: nn.Module, x: Tensor) -> Tensor:
    with replacing(net, "3", lambda maps: maps * 2):
        return net(x).detach()


def scanned(net: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(find_extreme_patches(net, "3", x, size=4, stride=2, progress=False).lowest.scores)


def scored(net: nn.Module, x: Tensor) -> Tensor:
    found = absence_scores(net, x, 0, 0.5 - x, steps=4, draws=1, progress=False)
    return torch.as_tensor(found.score)


def rendered(net: nn.Module, x: Tensor) -> Tensor:
    return torch.as_tensor(render_vis(net, "-3:1", lambda: param.image(8), **SMALL)[0]) + 0 * x.sum()


def zennit_map(net: nn.Module, x: Tensor, composite: Any, reference: Any) -> Tensor:
    return zennit_side.AbsenceGradient(net, composite, TARGET.expand(len(x), 3), reference=reference)(x)[1]  # type: ignore[no-any-return]


WORKS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "Unit.values": lambda net, x: Unit("3", 1).values(net, x).detach(),
    "replacing": changed_layer,
    "captum, references": lambda net, x: captum_side.AbsenceDeepLift(net, reference=REFERENCES).attribute(x, target=0),
    "captum, Captum itself": lambda net, x: captum_side.AbsenceDeepLift(net, nontarget=None).attribute(x, target=0),
    "captum, layer": lambda net, x: captum_side.AbsenceLayerGradCam(net, "3", nontarget=1).attribute(x, target=0),
    "captum, neuron": lambda net, x: captum_side.AbsenceNeuronDeepLift(net, "3").attribute(x, (0, 0, 0)),
    "relevance": lambda net, x: relevance(net, x, R[: len(x)], 0).attribution,
    "zennit": lambda net, x: zennit_map(net, x, zennit_side.AbsenceEpsilonGamma(), REFERENCES),
    "zennit, guided": lambda net, x: zennit_map(net, x, zennit_side.AbsenceGuidedBackprop(), R[0]),
    "zennit, context": in_context,
    "zennit, canonizers": merged,
    "prior": lambda net, x: AttributionPrior(net)(
        x, torch.zeros(len(x), dtype=torch.long), torch.ones(len(x), 1, 8, 8)
    ).detach(),
    "scan": scanned,
    "absence_scores": scored,
    "lucent": rendered,
    "lucent, values": lambda net, x: unit_values(net, "-3:1", x),
}


@pytest.mark.parametrize("name", list(WORKS))
def test_ctrl_c_leaves_the_model_as_before(name: str) -> None:
    net = make_net()
    interrupt_everywhere(lambda: WORKS[name](net, X), [net], most=8, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORKS))
def test_ctrl_c_at_more_points_leaves_the_model_as_before(name: str) -> None:
    net = make_net()
    interrupt_everywhere(lambda: WORKS[name](net, X), [net], most=60)


@pytest.mark.parametrize("name", list(WORKS))
def test_two_threads_take_turns_on_a_model(name: str) -> None:
    """The second thread begins while the first is in the middle of the model."""
    gate = Gate()
    net, calm, others = make_net(gate), make_net(), X.flip(3)
    wanted = [WORKS[name](calm, x) for x in (X, others)]

    def second() -> Tensor:
        assert gate.came.wait(10)
        try:
            return WORKS[name](net, others)
        finally:
            gate.done.set()

    with ThreadPoolExecutor(2) as pool:
        found = [one.result() for one in (pool.submit(WORKS[name], net, X), pool.submit(second))]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    # a forward of the user's own holds nothing, and rules answer to their own thread
    assert gate.was_alone or name == "zennit, context"


class Meanwhile(nn.Module):
    """While a thread explains, another one predicts, with the same model."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[nn.Module] = []  # no submodule
        self.found: list[Tensor] = []
        self.thread = threading.get_ident()

    def forward(self, x: Tensor) -> Tensor:
        if self.model and threading.get_ident() == self.thread:
            with ThreadPoolExecutor(1) as pool:
                self.found.append(pool.submit(lambda: self.model[0](X.flip(3))).result().detach())
        return x


# the host's own hooks are heard in every thread
HOSTS = {"captum, Captum itself", "captum, layer", "zennit, canonizers"}


@pytest.mark.parametrize("name", [one for one in WORKS if one not in HOSTS])
def test_predictions_in_another_thread_meet_no_hooks(name: str) -> None:
    crowd = Meanwhile()
    net = make_net(crowd)
    net.insert(4, crowd)
    wanted, predicted = WORKS[name](net, X), net(X.flip(3)).detach()
    crowd.model.append(net)
    assert torch.equal(WORKS[name](net, X), wanted)
    assert crowd.found
    assert all(torch.equal(one, predicted) for one in crowd.found)


def test_four_threads_that_read_one_unit() -> None:
    """As a web server does (F46)."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(288, 3))
    net, images = nn.Sequential(*layers).eval(), torch.rand(200, 1, 3, 32, 32)

    def read(x: Tensor) -> Tensor:
        return Unit("2", 1).values(net, x).detach()

    wanted = [read(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, images))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
