"""The mode that sees every torch operation of a forward; x's pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from absence_plugins.core.training import DRAWS, MIXES, REMEDY
from absence_plugins.relevance.names import Entering, Word, read
from absence_plugins.relevance.nodes import Call, SecantNode
from absence_plugins.relevance.operation import SECANTS, Operation, Place, RelevanceError
from absence_plugins.relevance.records import Memory, Record, exchange, scan, scan_keywords
from absence_plugins.relevance.rules import is_spread
from absence_plugins.relevance.secants.redistribution import Redistribution
from absence_plugins.relevance.vocabulary import FIXED, REMEDIES, TRAINING, WEIGHTED, is_linear

UNINITIALIZED = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
Embed = Callable[[Tensor, Any], Tensor]  # (what an embedding selects, its indices) -> where relevance is read
WORDS: dict[Callable[..., Any], Word] = {}  # how each torch function is treated, found once


@dataclass(slots=True)
class Seen:
    """A call of a torch function with operands that depend on the input."""

    word: Word
    name: str
    function: Callable[..., Any]
    given_args: tuple[
        Any, ...
    ]  # as the model gives them: torch chooses kernels by whether parameters require gradients
    given_kwargs: dict[str, Any]
    args: tuple[Any, ...]  # parameters detached
    kwargs: dict[str, Any]
    varying: tuple[Place, ...]
    operands: list[Tensor]

    def constants(self) -> tuple[Any, Any]:
        """The arguments with None for what depends on the input, and a copy of a constant that is overwritten in place.

        Of that only the values that stay matter.
        """
        args = self.args
        if self.word.in_place and not args[0].requires_grad:
            before = None if self.name in ("copy", "fill", "zero") else args[0].clone()
            if before is not None and self.name == "setitem":
                before[args[1]] = 0
            args = (before, *args[1:])
        return exchange(args, self.kwargs, self.varying, repeat(None))

    def detached(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments without graph."""
        return exchange(self.args, self.kwargs, self.varying, [operand.detach() for operand in self.operands])


class GraphMode(TorchFunctionMode):
    """Sees each operation of a pass, and passes those with varying operands to ``linear`` or ``secant``.

    Operations without a varying operand run as they are. Torch's Python functions are entered.
    """

    def __init__(self, memory: Memory, path: Callable[[], str], embed: Embed | None) -> None:
        super().__init__()
        self.memory, self.path, self.embed = memory, path, embed
        self.entering = Entering()
        self.decisions: list[str] = []  # operations that cut the dependence on the input

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        word = WORDS.get(func)
        if word is None:
            word = WORDS[func] = read(func)
        if word.passes:
            return func(*args, **kwargs)
        if word.is_python and not self.entering.is_recursive(func):
            with self:
                return self.entering.call(func, args, kwargs)
        places: list[Place] = []
        operands: list[Tensor] = []
        constant_args = scan(args, places, operands)
        constant_kwargs = scan_keywords(kwargs, places, operands) if kwargs else kwargs
        if not places:
            if word.in_place and args and isinstance(args[0], Tensor):
                self.memory.release(args[0])
            return self.constant(word, func, constant_args, constant_kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)  # the result depends on the input no longer; what uses it is compared
        if kwargs.get("out") is not None:
            self.refuse(word.name, "it writes to out=; call it without")
        if torch.is_autocast_enabled(operands[0].device.type):
            self.refuse(word.name, "autocast mixes types of numbers; run the model in one, without autocast")
        name = _resolve(word.name, args, kwargs)
        seen = Seen(word, name, func, args, kwargs, constant_args, constant_kwargs, tuple(places), operands)
        self.check_evaluation(name, args, kwargs)
        if self.is_linear(name, seen.varying):
            return self.linear(seen)
        if name in SECANTS:
            return self.secant(seen)
        return self.unknown(seen)

    # -- what the two passes do differently ----------------------------------------------------------------------------

    def linear(self, seen: Seen) -> Any:
        """An operation that is its own secant."""
        raise NotImplementedError

    def secant(self, seen: Seen) -> Any:
        """An operation with a secant."""
        raise NotImplementedError

    def is_linear(self, name: str, varying: tuple[Place, ...]) -> bool:
        """Whether an operation needs no secant."""
        raise NotImplementedError

    # -- what they share -----------------------------------------------------------------------------------------------

    def constant(self, word: Word, func: Any, args: Any, kwargs: Any) -> Any:
        """Run as it is; what integer inputs select from an embedding is where their relevance is read."""
        output = _run(word, func, args, kwargs)
        if self.embed is not None and word.name == "embedding" and torch.is_grad_enabled():
            return self.embed(output, args[1] if len(args) > 1 else kwargs["indices"])
        return output

    def unknown(self, seen: Seen) -> Any:
        """An operation of no known kind: it must cut the dependence on the input (comparisons, detach, argmax)."""
        output = _run(seen.word, seen.function, seen.args, seen.kwargs)
        if depends(output) or (seen.word.in_place and depends(seen.args[0])):
            self.refuse(seen.name)
        if not (seen.name.startswith("new_") or seen.name.endswith("_like")):
            self.decisions.append(f"{seen.name} in {where(self.path())}")
        return output

    def run_linear(self, seen: Seen) -> Any:
        """Run on plain autograd."""
        if seen.word.in_place:
            self.memory.release(seen.args[0])
        return seen.function(*seen.args, **seen.kwargs)

    def run_node(self, apply: Callable[..., Any], seen: Seen) -> tuple[Any, Any]:
        """Run inside a node: in place on a tensor of its own, else out of place and copied into the target.

        Returns the output for the model, and that of the kernel.
        """
        if not seen.word.in_place:
            call = Call(seen.function, seen.given_args, seen.given_kwargs, False)
            output = apply(call, *seen.operands)
            return output if isinstance(output, Tensor) else _typed(output, call.output), call.output
        target = seen.given_args[0]
        if seen.varying[0] == (0,) and not target._is_view():
            call = Call(seen.function, seen.given_args, seen.given_kwargs, True)
            apply(call, *seen.operands)
        else:
            call = Call(seen.word.function, seen.given_args, seen.given_kwargs, False)
            target.copy_(apply(call, *seen.operands))
        return target, call.output

    def check_evaluation(self, name: str, args: Any, kwargs: Any) -> None:
        """Refuse what draws at random or mixes the samples of the batch."""
        flag = TRAINING.get(name)
        if flag is None:
            return
        index, keyword = flag
        is_training = kwargs[keyword] if keyword in kwargs else args[index] if index < len(args) else False
        if not is_training or ("dropout" in name and (kwargs.get("p", args[1] if len(args) > 1 else 1) == 0)):
            return
        if name == "batch_norm":
            self.refuse(name, f"it {MIXES}; {REMEDY}, and keep running statistics")
        self.refuse(name, f"it {DRAWS}; {REMEDY}")

    def refuse(self, name: str, reason: str | None = None) -> NoReturn:
        """Say what was met, where, and what to do."""
        reason = (
            reason or REMEDIES.get(name) or "it is not known to be linear; register one with @secant, or rewrite it"
        )
        raise RelevanceError(f"{name} in {where(self.path())} has no exact relevance of differences: {reason}")


class RecordingMode(GraphMode):
    """x's pass: builds the graph whose nodes wait for their secants, and leaves the records."""

    def __init__(
        self,
        memory: Memory,
        path: Callable[[], str],
        rule: Callable[[], Redistribution | None],
        embed: Embed | None = None,
    ) -> None:
        super().__init__(memory, path, embed)
        self.records: list[Record] = []
        self.rule_in_force = rule
        self.weighted: list[tuple[Any, Record]] = []  # operations that a rule may be in force for, by their nodes
        self.dtypes: set[torch.dtype] = set()  # of what depends on the input

    def is_linear(self, name: str, varying: tuple[Place, ...]) -> bool:
        """Linear in the varying operands, and no redistribution in force."""
        return is_linear(name, varying) and not (name in WEIGHTED and self.rule_in_force() is not None)

    def linear(self, seen: Seen) -> Any:
        """Run on plain autograd; the record keeps the constants."""
        record = Record(seen.name, self.path(), *seen.constants(), seen.varying, seen.word.function, True)
        if seen.name in FIXED:
            args, kwargs = seen.detached()
            fixed = Operation(seen.name, seen.function, args, kwargs, args, kwargs, None, None, seen.varying)
            record.pull = SECANTS[seen.name](fixed)
            output, _ = self.run_node(partial(SecantNode.apply, record), seen)
        else:
            output = self.run_linear(seen)
            if not (depends(output) or seen.word.in_place):
                self.decisions.append(f"{seen.name} in {record.where}")
                return output
        self._keep(record, output)
        if seen.name in WEIGHTED:
            self.weighted.append((output.grad_fn, record))
        return output

    def secant(self, seen: Seen) -> Any:
        """Run inside a node; the record keeps operands and output."""
        kept, keywords = seen.detached()
        if seen.word.in_place:
            copied = self.memory.release(seen.args[0])
            kept = (seen.args[0].detach().clone() if copied is None else copied, *kept[1:])
        record = Record(seen.name, self.path(), kept, keywords, seen.varying, seen.word.function, False)
        if seen.name in WEIGHTED:
            record.rule = self.rule_in_force()
            record.graph_operand = seen.operands[0] if is_spread(record.rule) else None
        if seen.name == "mul":
            record.reciprocal = _reciprocal_factor(seen)
        output, _ = self.run_node(partial(SecantNode.apply, record), seen)
        self._keep(record, output)
        if seen.name in WEIGHTED:
            self.weighted.append((output.grad_fn, record))
        return output

    def _keep(self, record: Record, output: Any) -> None:
        self.records.append(record)
        if isinstance(output, Tensor):
            self.dtypes.add(output.dtype)
        self.memory.hold(record)


def _reciprocal_factor(seen: Seen) -> Place | None:
    """Where a factor stands that ``rsqrt`` or ``reciprocal`` has just computed: the product is a quotient then."""
    for place, operand in zip(seen.varying, seen.operands, strict=True):
        source = getattr(operand.grad_fn, "record", None)
        if source is not None and source.name in ("rsqrt", "reciprocal"):
            return place
    return None


def depends(output: Any) -> bool:
    """Whether an output depends on the input."""
    if isinstance(output, Tensor):
        return output.requires_grad
    return isinstance(output, (tuple, list)) and any(depends(entry) for entry in output)


def _run(word: Word, func: Any, args: Any, kwargs: Any) -> Any:
    """Run; memory that is not initialized is set to 0, so that it is the same in both passes."""
    output = func(*args, **kwargs)
    if word.name in UNINITIALIZED and isinstance(output, Tensor):
        output.detach().zero_()
    return output


def where(path: str) -> str:
    """A module for messages."""
    return f"module {path!r}" if path else "the model's own forward"


def _resolve(name: str, args: Any, kwargs: Any) -> str:
    """Names that depend on the arguments."""
    if name in ("max", "min"):
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return f"{name}imum" if isinstance(other, Tensor) else name
    if name == "div" and (kwargs.get("rounding_mode") or len(args) > 2):
        return "floor_divide"
    return name


def _typed(output: tuple[Any, ...], like: Any) -> Any:
    """The outputs of a node as the torch function gives them: a list, a tuple or a named tuple."""
    return output if type(like) is tuple else type(like)(output)
