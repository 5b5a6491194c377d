"""One name per operation, however it is called, and torch's own Python functions entered."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

SYNONYMS = {
    "truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub", "rmul": "mul",
    "radd": "add", "negative": "neg", "absolute": "abs", "clip": "clamp", "fix": "trunc", "concat": "cat",
    "concatenate": "cat", "arctan": "atan", "arcsin": "asin", "arccos": "acos", "arctanh": "atanh",
    "arcsinh": "asinh", "arccosh": "acosh", "special_expit": "sigmoid", "special_gammaln": "lgamma",
    "special_psi": "digamma", "linalg_matmul": "matmul", "rmatmul": "matmul", "linalg_diagonal": "diagonal",
    "log_sigmoid": "logsigmoid", "hardtanh": "hardtanh", "float_power": "pow", "moveaxis": "movedim",
    "conv_tbc": "conv_tbc", "ger": "outer", "max_pool1d_with_indices": "max_pool1d_with_indices",
    "sum_to_size": "sum_to_size", "floor_divide": "floor_divide",
}  # fmt: skip
SPECIAL = frozenset(
    [
        "softmax",
        "log_softmax",
        "erf",
        "erfc",
        "erfinv",
        "exp2",
        "expm1",
        "log1p",
        "logit",
        "logsumexp",
        "digamma",
        "sinc",
        "round",
    ]
)
IN_PLACE_DUNDERS = frozenset(
    ["iadd", "isub", "imul", "itruediv", "idiv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"]
)
# Attributes that are views of the tensor; every other attribute passes.
VIEWS = frozenset(("T", "mT", "H", "mH", "real", "imag"))
# Functions in Python that only look at a tensor, or keep it: they run outside the mode.
PASSING = frozenset(
    [
        "__repr__",
        "__format__",
        "__deepcopy__",
        "__reduce_ex__",
        "__setstate__",
        "__array__",
        "__hash__",
        "register_hook",
        "retain_grad",
        "requires_grad_",
        "register_post_accumulate_grad_hook",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "dim",
        "size",
        "stride",
        "numel",
        "storage_offset",
        "element_size",
        "get_device",
        "data_ptr",
        "is_shared",
        "_assert",
        "_assert_async",
        "_set_grad_enabled",
        "is_grad_enabled",
    ]
)
NESTED = {"einsum": 2}  # functions that call themselves; others come back only as the builtin of the same name


@dataclass(frozen=True, slots=True)
class Word:
    """How one torch function is treated."""

    name: str
    in_place: bool
    passes: bool  # looks at tensors without computing from them
    is_python: bool  # written in Python: entered
    function: Callable[..., Any]  # the out-of-place form


def read(function: Callable[..., Any]) -> Word:
    """The canonical name of a torch function, and how it is treated.

    >>> read(torch.Tensor.mul_).name, read(torch.Tensor.mul_).in_place, read(torch.special.expit).name
    ('mul', True, 'sigmoid')
    """
    spelled = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, torch._ops.OpOverload):  # of an exported program: "aten::add_" of add_.Tensor
        spelled = function._schema.name.split("::")[-1]
    if spelled == "__get__":
        attribute = getattr(getattr(function, "__self__", None), "__name__", "")
        return Word(attribute, False, attribute not in VIEWS, False, function)
    if spelled in ("__set__", "__delete__") or spelled in PASSING:
        return Word(spelled, False, True, False, function)
    name, in_place = _canonical(spelled)
    if isinstance(function, types.FunctionType):
        return Word(name, in_place, False, True, function)
    return Word(name, in_place, False, False, _out_of_place(name, spelled, function) if in_place else function)


def _canonical(spelled: str) -> tuple[str, bool]:
    name, in_place = spelled, False
    if spelled.startswith("__") and spelled.endswith("__"):
        name = spelled[2:-2]
        if name in IN_PLACE_DUNDERS:
            name, in_place = name[1:], True
        in_place = in_place or name == "setitem"
    elif spelled.endswith("_"):
        name, in_place = spelled[:-1], True
    if name.startswith("special_") and name[8:] in SPECIAL:
        name = name[8:]
    return SYNONYMS.get(name, name), in_place


def _out_of_place(name: str, spelled: str, function: Callable[..., Any]) -> Callable[..., Any]:
    for place in (torch, torch._C._nn, torch.Tensor, functional):
        for form in (spelled.rstrip("_"), name):
            found = getattr(place, form, None)
            if found is not None:
                return found  # type: ignore[no-any-return]
    return function


class Entering:
    """Copies of torch's Python functions in which torch is not overridden: what they call inside is seen.

    A copy shares code, defaults and closure with the original; its globals are the original's, except that
    ``has_torch_function*`` say no.
    """

    def __init__(self) -> None:
        self._copies: dict[Any, Callable[..., Any]] = {}
        self._globals: dict[int, dict[str, Any]] = {}
        self._running: list[Callable[..., Any]] = []

    def is_recursive(self, function: Callable[..., Any]) -> bool:
        """Whether an entered function has come to its builtin, which torch announces by the same function."""
        return self._running.count(function) >= NESTED.get(function.__name__, 1)

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the copy of a function."""
        copy = self._copies.get(function)
        if copy is None:
            copy = self._copies[function] = self._copy(function)
        self._running.append(function)
        try:
            return copy(*args, **kwargs)
        finally:
            self._running.pop()

    def _copy(self, function: types.FunctionType) -> Callable[..., Any]:
        branches: Any = torch._jit_internal.boolean_dispatched.get(function)
        if branches is None:
            return self._copy_plain(function)
        if_true, if_false = self._copy_plain(branches["if_true"]), self._copy_plain(branches["if_false"])
        flag, index, default = branches["arg_name"], branches["index"], branches["default"]

        def dispatch(*args: Any, **kwargs: Any) -> Any:
            chosen = kwargs[flag] if flag in kwargs else args[index] if index < len(args) else default
            return (if_true if chosen else if_false)(*args, **kwargs)

        return dispatch

    def _copy_plain(self, function: types.FunctionType) -> Callable[..., Any]:
        copy = types.FunctionType(
            function.__code__,
            self._unaware(function.__globals__),
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    def _unaware(self, names: dict[str, Any]) -> dict[str, Any]:
        found = self._globals.get(id(names))
        if found is None:
            found = dict(names)
            found.update({name: _nobody_overrides for name in names if name.startswith("has_torch_function")})
            self._globals[id(names)] = found
        return found


def _nobody_overrides(*_args: Any) -> bool:
    return False
