"""Hooks and changes of a model that live inside a ``with`` block and are gone after it.

One thread at a time has them on a model, other threads' forwards pass them (:func:`keep_to_thread`), and Ctrl-C leaves
none (:mod:`absence_plugins.core.turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from threading import get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn

from absence_plugins.core.module_tree import list_modules, list_parameters
from absence_plugins.core.turns import working_on


def keep_to_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Make a forward hook that runs only in the thread that makes it: other threads may call the model meanwhile.

    Replicas of ``nn.DataParallel`` run in threads of their own, and are heard.

    >>> from threading import Thread
    >>> net, seen = nn.Identity(), []
    >>> with hooking(net, [lambda: net.register_forward_hook(keep_to_thread(lambda *call: seen.append(call[-1])))]):
    ...     other = Thread(target=net, args=(3,))
    ...     other.start(), other.join(), net(4)
    (None, None, 4)
    >>> seen
    [4]
    """
    return _OfThread(hook)


class _OfThread:
    def __init__(self, hook: Callable[..., Any]) -> None:
        self._hook, self._thread = hook, get_ident()
        self.__self__ = getattr(hook, "__self__", None)  # whose method it is, as of the hook

    def __call__(self, module: nn.Module, *call: Any) -> Any:
        if get_ident() == self._thread or vars(module).get("_is_replica"):
            return self._hook(module, *call)
        return None


@contextmanager
def hooking(model: nn.Module, registrations: Iterable[Callable[[], Any]]) -> Iterator[None]:
    """In this block hooks are on a model; each registration is called once and returns a handle.

    >>> net, seen = nn.Identity(), []
    >>> with hooking(net, [lambda: net.register_forward_hook(lambda *call: seen.append(call[-1]))]):
    ...     _ = net(3)
    >>> net(4), seen
    (4, [3])
    """
    handles: list[Any] = []
    with working_on(model):
        try:
            for register in registrations:
                handles.append(register())
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def rewritten(module: nn.Module, change: Callable[[Tensor], Tensor], *, side: str = "output") -> Iterator[None]:
    """Let a module put out ``change(output)``, or take in ``change(input)``; of several, the first is changed.

    >>> linear = nn.Identity()
    >>> with rewritten(linear, lambda output: output + 1):
    ...     _ = print(linear(torch.zeros(2)))
    tensor([1., 1.])
    """

    def replace(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, (tuple, list)):
            return type(output)((change(output[0]), *output[1:]))
        return change(output)

    def replace_input(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(inputs[0]), *inputs[1:])

    def register() -> Any:
        if side == "input":
            return module.register_forward_pre_hook(keep_to_thread(replace_input))
        return module.register_forward_hook(keep_to_thread(replace))

    with hooking(module, [register]):
        yield


@contextmanager
def counting(model: nn.Module, tick: Callable[[int], object]) -> Iterator[None]:
    """Call ``tick(samples)`` in front of every forward of a model, for a progress bar.

    >>> seen = []
    >>> with counting(nn.Identity(), seen.append):
    ...     pass
    >>> model = nn.Identity()
    >>> with counting(model, seen.append):
    ...     _ = model(torch.zeros(3, 2))
    >>> seen
    [3]
    """

    def count(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tick(len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() else 1)

    with hooking(model, [lambda: model.register_forward_pre_hook(keep_to_thread(count))]):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; every module's own mode comes back."""
    with working_on(model):
        modes = [(module, module.training) for module in model.modules()]
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training


class unchanged(working_on):
    """Take off a model's modules what was put on them: hooks and attributes, modes and ``requires_grad``.

    Hosts leave hooks and bookkeeping attributes behind when something raises half-way, and LRP removes the
    user's rules. What is new goes, what is gone comes back (but not a hook that removed itself); values
    that a forward changes by itself (batch norm's statistics in training mode, counters) stay changed.
    What is not an ``nn.Module`` passes through.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._model = model

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._kept = keeping(list_modules(self._model)).__enter__()
        except BaseException as error:
            super().__exit__(None, error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._kept.__exit__()
        finally:
            super().__exit__(kind, error, trace)


class keeping:
    """As :class:`unchanged`, of modules on which this thread works already (:class:`~turns.working_on`)."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules

    def __enter__(self) -> Self:
        attributes = [module.__dict__ for module in self._modules]
        self._tables = [value for one in attributes for value in one.values() if isinstance(value, dict)]
        self._holders = [*attributes, *filter(None, self._tables)]  # a table that is empty, as most are, needs no copy
        self._before = [holder.copy() for holder in self._holders]
        self._parameters = list_parameters(self._modules)
        self._tensors = [(one, one.requires_grad, one.grad) for one in self._parameters]
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_as_before():
            count = len(self._modules)
            entries = {id(table): kept for table, kept in zip(self._holders[count:], self._before[count:], strict=True)}
            for now, before in zip(self._holders[:count], self._before[:count], strict=True):
                _restore(now, before, entries)
        for tensor, requires_grad, grad in self._tensors:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad

    def _is_as_before(self) -> bool:
        """Whether nothing has changed, as nearly always: told without a look at each table. False: not known."""
        if len(self._modules) + len(list(filter(None, self._tables))) != len(self._holders):
            return False
        try:
            if self._holders != self._before:  # what is the same object counts as equal without being asked
                return False
        except Exception:  # another tensor, which is compared by entry
            return False
        now = list_parameters(self._modules)  # another one with the same number in it
        return len(now) == len(self._parameters) and all(map(is_, now, self._parameters))


@contextmanager
def reversible(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Put a model back if the block raises; after the block, the function that is yielded reverts what the block did.

    For a registration. One that fails half-way leaves hooks on the model and weights merged. One that succeeds is
    taken back by its host, but not always wholly: parameters that were created for it can stay. The function reverts
    parameters, buffers, submodules and attributes that the block changed, and parameters that were replaced since by
    copies on the same memory; training, ``to(device)`` and hooks between the block and the call of the function are
    kept.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> with reversible(net) as undo:
    ...     net.bias = nn.Parameter(torch.ones(1))
    >>> list(net.state_dict())
    ['weight', 'bias']
    >>> undo()
    >>> list(net.state_dict())
    ['weight']
    """
    modules = list(model.modules())
    before = _contents(modules)
    changed: set[tuple[nn.Module, str]] = set()

    def undo() -> None:
        now = _contents(modules)
        replaced = {place for place in before if _is_replaced(before[place], now.get(place))}
        # a name can lie in two tables: an attribute hides the parameter of its name, and rules may write to either
        _put_back(before, replaced | {place for place in before | now if (place[0], place[2]) in changed})

    with working_on(model):
        kept = keeping(modules)
        kept.__enter__()
        try:
            yield undo
        except BaseException:
            _put_back(before, _differences(before, _contents(modules)))
            kept.__exit__()
            raise
        changed |= {(module, name) for module, _table, name in _differences(before, _contents(modules))}


_Place = tuple[nn.Module, str, str]  # a module; a table of it, or "" for its attributes; a name
_Content = tuple[Any, Tensor | None]  # a value; of a tensor also its memory


def _contents(modules: Iterable[nn.Module]) -> dict[_Place, _Content]:
    """Everything that modules hold, but hooks."""
    found: dict[_Place, _Content] = {}
    for module in modules:
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules") and isinstance(value, dict):
                items = [((module, name, key), item) for key, item in value.items()]
            else:
                items = [] if "hook" in name else [((module, "", name), value)]
            found |= {place: (item, item.data if isinstance(item, Tensor) else None) for place, item in items}
    return found


def _differences(before: dict[_Place, _Content], now: dict[_Place, _Content]) -> set[_Place]:
    """The places that hold another object, or a tensor with other memory."""
    missing = object(), None
    differences = set()
    for place in before.keys() | now.keys():
        (value, data), (new_value, new_data) = before.get(place, missing), now.get(place, missing)
        if value is not new_value or not _is_same_memory(data, new_data):
            differences.add(place)
    return differences


def _is_same_memory(data: Tensor | None, other: Tensor | None) -> bool:
    if data is None or other is None:
        return data is other
    # what has no strides (sparse tensors) is restored without need
    return data.layout == other.layout == torch.strided and data.is_set_to(other)


def _is_replaced(before: _Content, now: _Content | None) -> bool:
    """Whether a parameter is another object with the same memory: replaced, and not by a user for its values."""
    if now is None or not isinstance(before[0], nn.Parameter) or not isinstance(now[0], nn.Parameter):
        return False
    return before[0] is not now[0] and _is_same_memory(before[1], now[1])


def _put_back(before: dict[_Place, _Content], places: Iterable[_Place]) -> None:
    for place in places:
        module, table, name = place
        holder = vars(module)[table] if table else vars(module)
        if place not in before:
            holder.pop(name, None)
            if table == "_buffers":
                module._non_persistent_buffers_set.discard(name)
            continue
        value, data = before[place]
        holder[name] = value
        if data is not None:
            value.data = data


def _restore(now: dict[str, Any], before: dict[str, Any], entries: dict[int, dict[Any, Any]]) -> None:
    """Take off a module's attributes what is new, put back what is gone; and the same of those that are tables (hooks,
    parameters, submodules).

    ``entries``: of the tables that were not empty, by ``id``.
    """
    if now.keys() != before.keys():
        for name in now.keys() - before.keys():
            del now[name]
        for name in before.keys() - now.keys():
            now[name] = before[name]
    if "training" in before:
        now["training"] = before["training"]
    for name, table in before.items():
        if not isinstance(table, dict):
            continue
        kept = entries.get(id(table), {})
        present = now[name]  # maybe another one was put in its place
        if not isinstance(present, dict):
            continue
        for key in present.keys() - kept.keys():
            del present[key]  # of the same dictionary object, as removable handles refer to it
        if "hook" not in name:
            present.update(kept)


@contextmanager
def quiet_forward(inputs: Iterable[Tensor]) -> Iterator[None]:
    """Run extra forwards without gradients and without moving the user's random state."""
    devices = {tensor.device.index or 0 for tensor in inputs if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
        yield
