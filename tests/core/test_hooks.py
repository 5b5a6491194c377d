"""Every hook and every attribute is gone after its block, also when something raises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from threading import get_ident
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Layer, Unit
from absence_plugins.core.hooks import counting, quiet_forward, reversible, rewritten, unchanged
from absence_plugins.core.module_calls import observed_calls, running_modules
from absence_plugins.core.reading import Watch
from absence_plugins.core.recorder import Recorder
from absence_plugins.core.replacing import replacing


def hooks(net: nn.Module) -> int:
    return sum(
        len(getattr(m, name))
        for m in net.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


@pytest.mark.parametrize(
    "block",
    [
        lambda m: Watch(m, "output", ""),
        lambda m: Watch(m, "input", ""),
        lambda m: Recorder(nn.Sequential(m)),
    ],
)
def test_no_hook_is_left(block: Callable[[nn.Module], AbstractContextManager[object]]) -> None:
    net = nn.Linear(1, 1)
    with block(net):
        assert hooks(net) == 1
    assert hooks(net) == 0

    def fail() -> None:
        with block(net):
            net(torch.zeros(1, 5))

    with pytest.raises(RuntimeError):
        fail()
    assert hooks(net) == 0


def test_what_is_overwritten_behind_a_watch_is_kept() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True))
    nn.init.constant_(net[0].weight, -2.0)
    with Watch(net[0], "output", "0") as out, Watch(net[1], "input", "1") as into:
        net(torch.ones(1, 1))
        net(torch.full((1, 1), 3.0))
    assert [value.item() for value in out.values] == [-2.0, -6.0]
    assert [value.item() for value in into.values] == [-2.0, -6.0]


def test_unchanged_puts_everything_back() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    handle = net[0].register_forward_hook(lambda *_: None)
    net[0].note = {"kept": 1}
    names = [sorted(vars(m)) for m in net.modules()]
    weight = net[0].weight

    def disturb() -> None:
        with unchanged(net):
            net[0].rule = "mine"
            net[0].note["added"] = 2
            net[1].register_forward_pre_hook(lambda *_: None)
            net[1].eval()
            net[0].weight = nn.Parameter(torch.zeros(2, 2))
            weight.requires_grad_(False)
            weight.grad = torch.ones(2, 2)
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        disturb()
    assert [sorted(vars(m)) for m in net.modules()] == names
    assert net[0].note == {"kept": 1}
    assert net[0].weight is weight
    assert weight.requires_grad
    assert weight.grad is None
    assert net[1].training
    assert hooks(net) == 1
    handle.remove()  # the user's handle still finds its dictionary
    assert hooks(net) == 0


def test_unchanged_takes_bound_methods_and_lets_functions_through() -> None:
    net = nn.Linear(1, 1)
    with unchanged(net.forward):
        net.mark = 1
    assert not hasattr(net, "mark")
    with unchanged(lambda x: x):
        pass


def test_quiet_forward_draws_in_secret_and_without_gradients() -> None:
    state = torch.get_rng_state()
    x: Tensor = torch.ones(1, requires_grad=True)
    with quiet_forward([x]):
        torch.rand(3)
        assert not (x * 2).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_reversible_puts_everything_back_on_error_and_on_demand() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    net[0].note = "user's"
    weight, values, mean = net[0].weight, net[0].weight.tolist(), net[1].running_mean

    def change() -> None:
        net[0].bias = nn.Parameter(torch.ones(2))
        net[0].weight.data = torch.zeros(2, 2)
        net[1].running_mean = torch.ones(2)
        net[1].eps = 0.5
        net[0].note, net[0].extra = "changed", nn.Identity()

    def check() -> None:
        assert list(net.state_dict())[:2] == ["0.weight", "1.weight"]
        assert net[0].weight is weight
        assert weight.tolist() == values
        assert net[1].running_mean is mean
        assert net[1].eps == 1e-5
        assert net[0].note == "user's"
        assert not hasattr(net[0], "extra")

    with reversible(net) as undo:
        change()
    assert "0.bias" in net.state_dict()
    undo()
    check()

    def fail() -> None:
        with reversible(net):
            net[0].register_forward_hook(lambda *_: None)
            change()
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        fail()
    check()
    assert hooks(net) == 0


def test_reversible_keeps_what_happens_after_its_block() -> None:
    net = nn.Linear(2, 2)
    with reversible(net) as undo:
        net.bias.data = torch.zeros(2)
    with torch.no_grad():
        net.weight.fill_(3.0)
    net.added = 1
    undo()
    assert net.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert net.added == 1
    assert net.bias.any()


# -- other threads -----------------------------------------------------------------------------------------------------


class Meanwhile(nn.Module):
    """While one thread is here, another one calls the whole model on another image."""

    def __init__(self) -> None:
        super().__init__()
        self.model: list[nn.Module] = []  # no submodule
        self.thread, self.found = get_ident(), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if self.model and get_ident() == self.thread:
            with ThreadPoolExecutor(1) as pool:
                self.found.append(pool.submit(lambda: self.model[0](torch.full((1, 3), 7.0))).result().detach())
        return x


class Block(nn.Module):
    def __init__(self, meanwhile: nn.Module) -> None:
        super().__init__()
        self.linear, self.relu, self.meanwhile = nn.Linear(4, 4), nn.ReLU(), meanwhile

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.meanwhile(self.linear(x)))  # type: ignore[no-any-return]


def crowded_net() -> tuple[nn.Sequential, Meanwhile]:
    torch.manual_seed(0)
    crowd = Meanwhile()
    net = nn.Sequential(
        nn.Linear(3, 4), Block(crowd), nn.Linear(4, 4), nn.ReLU(), crowd, nn.Linear(4, 2), nn.Softmax(1)
    )
    return net.eval(), crowd


def read_twice(net: nn.Module, x: Tensor) -> Tensor:
    with Layer("1").reading(net) as run:  # stops at the layer the second time
        return torch.stack([run(x), run(x)])


def in_block(block: Callable[[nn.Module], AbstractContextManager[Any]]) -> Callable[[nn.Module, Tensor], Tensor]:
    def work(net: nn.Module, x: Tensor) -> Tensor:
        with block(net):
            return net(x)  # type: ignore[no-any-return]

    return work


def recorded(net: nn.Module, x: Tensor) -> Tensor:
    with Recorder(net) as recorder:
        net(x)
        return recorder.outputs[net.get_submodule("3")]  # type: ignore[no-any-return]


def counted(net: nn.Module, x: Tensor) -> Tensor:
    seen: list[int] = []
    with counting(net, seen.append):
        net(x)
    return torch.tensor(seen)


def listed(net: nn.Module, x: Tensor) -> Tensor:
    seen: list[str] = []
    with ExitStack() as stack:
        running = stack.enter_context(running_modules(net))
        stack.enter_context(observed_calls(net, lambda name, *_: seen.append("/".join((name, *running)))))
        net(x)
    return torch.tensor([*"|".join(seen).encode()])


BLOCKS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "unit": lambda net, x: Unit("2", 1).values(net, x),
    "input of an activation": lambda net, x: Layer("3").read(net, x),
    "block that ends in an activation": lambda net, x: Layer("1").read(net, x),
    "logits": lambda net, x: Layer("").read(net, x),
    "reading": read_twice,
    "recorder": recorded,
    "replaced block": in_block(lambda net: replacing(net, "1", lambda maps: maps * 2)),
    "replaced input": in_block(lambda net: replacing(net, "3", lambda maps: maps * 2)),
    "rewritten": in_block(lambda net: rewritten(net.get_submodule("2"), lambda value: value * 2)),
    "rewritten input": in_block(lambda net: rewritten(net.get_submodule("2"), lambda value: value * 2, side="input")),
    "counting": counted,
    "names of modules": listed,
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_hooks_do_not_meet_the_calls_of_other_threads(name: str) -> None:
    """As a server does, which predicts in one thread and explains in another."""
    (net, crowd), x = crowded_net(), torch.ones(1, 3)
    alone, predicted = BLOCKS[name](net, x).detach(), net(torch.full((1, 3), 7.0)).detach()
    crowd.model.append(net)
    assert torch.equal(BLOCKS[name](net, x), alone)
    assert crowd.found
    assert all(torch.equal(one, predicted) for one in crowd.found)


def test_replicas_of_data_parallel_are_heard_in_their_threads() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.ones(1, 3)
    with rewritten(net[0], lambda value: value * 0 + 5), ThreadPoolExecutor(1) as pool:
        replica = net._replicate_for_data_parallel()
        replica._modules = {name: one._replicate_for_data_parallel() for name, one in net.named_children()}
        for copied, one in zip(replica.children(), net.children(), strict=True):
            for name, value in one.named_parameters():
                setattr(copied, name, value)
        assert pool.submit(replica, x).result().tolist() == [[5.0] * 4]
        assert pool.submit(net, x).result().tolist() != [[5.0] * 4]


def _attached(module: nn.Module) -> None:
    module._forward_hooks[10**9] = lambda *call: None  # without a handle
    assert isinstance(module, nn.Linear)
    del module.in_features
    module.in_columns = module.weight.shape[1]  # type: ignore[assignment]


def _replaced(module: nn.Module) -> None:
    module._parameters = dict(module._parameters, extra=nn.Parameter(torch.ones(1)))
    module.weight = nn.Parameter(module.weight.detach().clone())


@pytest.mark.parametrize(
    "change",
    [
        _attached,
        _replaced,
        lambda module: module.table.update(b=2, a=3),
        lambda module: setattr(module, "table", {"c": 4}),
        lambda module: module.register_buffer("new", torch.ones(1)),
        lambda module: module.register_parameter("bias", None),
        lambda module: module.train(not module.training),
        lambda module: module.register_forward_pre_hook(lambda *call: None, with_kwargs=True),
        lambda module: module.add_module("inner", nn.ReLU()),
    ],
)
def test_every_kind_of_change_to_one_module_among_others_is_noticed(change: Callable[[Any], object]) -> None:
    """Each alone: no other change may be what makes the look at all tables necessary."""
    net = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1))).eval()
    net[1].table = {"a": 1}

    def state() -> list[Any]:
        return [
            {
                name: {key: id(entry) for key, entry in value.items()} if isinstance(value, dict) else value
                for name, value in vars(module).items()
            }
            for module in net.modules()
        ]

    before = state()
    with unchanged(net):
        change(net[1])
        assert state() != before
    assert state() == before


def test_what_a_forward_changes_by_itself_stays_changed() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].seen = 300
    with unchanged(net):
        net[0].seen = 301
        net(torch.randn(4, 2))
    assert net[0].seen == 301
    assert net[1].num_batches_tracked == 1


def test_a_parameter_of_one_number_that_is_replaced_by_an_equal_one_is_put_back() -> None:
    net = nn.Sequential(nn.PReLU(), nn.ReLU())
    weight, twin = net[0].weight, nn.Parameter(net[0].weight.detach().clone())
    with unchanged(net):
        net[0].weight = twin
    assert net[0].weight is weight
    with unchanged(net):
        net[0]._parameters = {"weight": twin}
    assert net[0].weight is weight


def test_tensors_and_objects_that_a_forward_keeps_may_refuse_to_be_compared() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise KeyError("not to be compared")

        __hash__ = None  # type: ignore[assignment]

    net = nn.Sequential(nn.ReLU(), nn.ReLU())
    for first, second in ((torch.ones(2), torch.ones(2)), (torch.ones(2), torch.ones(3)), (Odd(), Odd())):
        net[0].kept = first
        with unchanged(net):
            net[0].kept = second
            net[1].added = 1
        assert net[0].kept is second
        assert not hasattr(net[1], "added")
