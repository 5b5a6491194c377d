"""The walk over a model's modules finds what torch's own finds."""

from __future__ import annotations

import torch
from torch import nn

from absence_plugins.core.hooks import unchanged
from absence_plugins.core.module_tree import list_modules, list_parameters


class Shared(nn.Module):
    """Two names for one module, a name for none, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.again = self.first[0]
        self.nothing = None
        self.register_module("absent", None)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_parameter("no_bias", None)


def test_the_walk_finds_every_module_and_parameter_once():
    net = Shared()
    modules = list_modules(net)
    assert len(modules) == len(list(net.modules()))
    assert set(modules) == set(net.modules())
    assert {id(one) for one in list_parameters(modules)} == {id(one) for one in net.parameters()}
    assert set(list_modules(net.forward)) == set(net.modules())
    assert list_modules(lambda x: x) == []


def test_the_walk_enters_scripted_modules():
    net = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert len(list_modules(net)) == len(list(net.modules()))
    assert len(list_parameters(list_modules(net))) == 2


def test_tables_that_were_empty_are_emptied_and_one_that_was_replaced_is_kept_to_its_entries():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    own = net[0].register_forward_hook(lambda *_: None)
    with unchanged(net):
        net[1].register_forward_hook(lambda *_: None)
        net[1].register_buffer("left", torch.ones(1))
        net[0].register_forward_pre_hook(lambda *_: None)
        net[0]._forward_hooks = dict(net[0]._forward_hooks) | {-1: lambda *_: None}
        del net[0]._backward_hooks
        net[0].bias = None
        net[1].inplace = True
    assert not net[1]._forward_hooks
    assert not net[1]._buffers
    assert not net[0]._forward_pre_hooks
    assert list(net[0]._forward_hooks) == [own.id]
    assert net[0]._backward_hooks == {}
    assert net[0].bias is not None
    assert net[1].inplace  # an attribute that was there keeps its new value
