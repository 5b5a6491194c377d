"""After a context the model is as before, whatever a canonizer changed and whichever version of Zennit took it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapter_table import trace
from test_zennit_contract import OURS, UPSTREAM, Blown, composite_of
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import AttributeCanonizer, Canonizer, NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus
from zennit.torchvision import VGGCanonizer
from zennit_nets import images, one, randomized

from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceEpsilonPlus, AbsenceGradient

pytestmark = pytest.mark.filterwarnings("ignore")


def merged_net() -> nn.Sequential:
    """Merges with and without a bias, of a convolution and of a dense layer."""
    first, second = nn.Conv2d(2, 3, 3, bias=False), nn.Linear(108, 4)
    net = nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), second, nn.BatchNorm1d(4), nn.Linear(4, 3))
    net = randomized(net, 3).double().eval()
    net[1].note = net[0].note = "user's"
    return net


class Forgetful(Canonizer):
    """Changes every kind of thing that a module holds, and takes nothing back."""

    def apply(self, root_module: nn.Module) -> list[Any]:
        conv, norm = root_module[0], root_module[1]
        conv.bias = nn.Parameter(torch.ones(3, dtype=torch.float64))
        conv.register_buffer("scale", torch.ones(1), persistent=False)
        conv.note = "changed"
        conv.extra = nn.Identity()
        norm.weight.data = norm.weight.data * 2
        norm.running_mean = norm.running_mean + 1
        object.__setattr__(norm, "bias", norm.bias * 2)
        norm.eps = 0.5
        del norm.note
        return [self]

    def register(self) -> None: ...

    def remove(self) -> None: ...


CANONIZERS: dict[str, Callable[[], Canonizer]] = {
    "sequential": SequentialMergeBatchNorm,
    "named": lambda: NamedMergeBatchNorm([(("0",), "1"), (("4",), "5")]),
    "torchvision": VGGCanonizer,
    "attribute": lambda: AttributeCanonizer(lambda name, module: {"note": "changed"} if name in ("0", "1") else None),
    "forgetful": Forgetful,
}


def contents(net: nn.Module) -> Any:
    """The state dict bit by bit, and the very objects: parameters, buffers, modules, attributes, hooks, gradients."""
    saved = [(key, value.data_ptr(), value.tolist()) for key, value in net.state_dict().items()]
    hidden = [sorted(module._non_persistent_buffers_set) for module in net.modules()]
    return saved, hidden, trace(net), [(id(value), value.tolist()) for value in (*net.parameters(), *net.buffers())]


@pytest.mark.parametrize("canonizer", CANONIZERS)
@pytest.mark.parametrize("name", [*OURS, *UPSTREAM])
def test_attributors_leave_the_model_as_it_was(name: str, canonizer: str) -> None:
    net, x = merged_net(), images(2)
    before, outputs = contents(net), net(x)
    composite = composite_of(name, canonizers=[CANONIZERS[canonizer]()])
    attributor = AbsenceGradient(net, composite)
    attributor(x, one(0, 1))
    assert contents(net) == before
    with attributor:
        assert contents(net) != before
        with pytest.raises((RuntimeError, ValueError)):
            attributor(x, torch.eye(5)[[0, 0]].double())  # a wrong target
    assert contents(net) == before
    with pytest.raises(RuntimeError, match=r"shapes|size"):
        attributor(images(2)[:, :, :5], one(0, 1))  # does not fit the dense layer
    assert contents(net) == before
    composite = composite_of(name, canonizers=[CANONIZERS[canonizer](), Blown()])
    with pytest.raises(RuntimeError, match="the fuse"):
        AbsenceGradient(net, composite)(x, one(0, 1))
    assert contents(net) == before
    assert torch.equal(net(x), outputs)


@pytest.mark.parametrize("canonizer", CANONIZERS)
@pytest.mark.parametrize("name", OURS)
def test_contexts_of_our_composites_leave_the_model_as_it_was(name: str, canonizer: str) -> None:
    net, x = merged_net(), images(2)
    before = contents(net)
    composite = composite_of(name, canonizers=[CANONIZERS[canonizer]()])
    for _ in range(2):
        with composite.context(net) as registered:
            Gradient(registered)(x, one(0, 1))
        assert contents(net) == before
    with composite.context(net), pytest.raises(RuntimeError):
        net(x[:, :, :5])
    assert contents(net) == before
    composite.register(net)
    composite.remove()
    composite.remove()  # for a second time: nothing
    assert contents(net) == before
    with pytest.raises(RuntimeError, match="the fuse"):
        composite_of(name, canonizers=[CANONIZERS[canonizer](), Blown()]).register(net)
    assert contents(net) == before


def test_a_saved_network_loads_and_computes_the_same() -> None:
    net, x = merged_net(), images(2)
    AbsenceGradient(net, AbsenceEpsilonGamma(canonizers=[SequentialMergeBatchNorm()]))(x, one(0, 1))
    loaded = merged_net()
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded(x), net(x))


def test_what_is_done_to_the_model_in_a_context_stays() -> None:
    """Only what the registration changed comes back: not training, casts, new parameters or hooks of the user's."""
    net = merged_net()
    classifier = net[-1]
    trained, cast, head = (
        classifier.weight.detach() + 1,
        net[4].bias.to(torch.float32),
        nn.Parameter(torch.ones(3).double()),
    )
    called: list[int] = []
    with AbsenceEpsilonPlus().context(net):
        with torch.no_grad():
            classifier.weight += 1
        net[4].bias.data = cast
        classifier.bias = head
        net[0].register_forward_hook(lambda *_: called.append(1))
        net[0].note = "new"
    assert torch.equal(classifier.weight, trained)
    assert net[4].bias.dtype == torch.float32
    assert classifier.bias is head
    assert net[0].note == "new"
    net[0](images(1))
    assert called == [1]


def test_two_contexts_end_in_any_order() -> None:
    net = merged_net()
    before = contents(net)
    first, second = AbsenceEpsilonGamma(canonizers=[Forgetful()]), AbsenceEpsilonPlus()
    first.register(net)
    inside: list[Tensor] = [value.clone() for value in net.state_dict().values()]
    second.register(net)
    first.remove()
    second.remove()
    assert contents(net) == before
    assert len(inside) == len(net.state_dict()) + 1


def test_an_optimizer_made_before_trains_the_parameters_that_the_model_has() -> None:
    """Zennit 1.0's own rules replace parameters by copies on the same memory, which no optimizer knows."""
    net, x = merged_net(), images(2)
    known = {id(parameter) for parameter in net.parameters()}
    AbsenceGradient(net, EpsilonPlus())(x, one(0, 1))
    with AbsenceGradient(net, EpsilonPlus()) as attributor:
        attributor(x, one(0, 1))
    assert {id(parameter) for parameter in net.parameters()} == known
