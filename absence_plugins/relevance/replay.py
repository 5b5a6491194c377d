"""r's pass: operation i meets record i, and the two become the backward of x's node."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, NoReturn

import torch
from torch import Tensor

from absence_plugins.relevance.constants import are_equal
from absence_plugins.relevance.mode import Embed, GraphMode, Seen, depends, where
from absence_plugins.relevance.nodes import DependenceNode
from absence_plugins.relevance.operation import SECANTS, Operation, Place, Pull, RelevanceError
from absence_plugins.relevance.records import Memory, Record, detach_all, exchange, put
from absence_plugins.relevance.vocabulary import FIXED, is_linear


class ReplayMode(GraphMode):
    """Runs r's pass over the records of x's; its own activations are not kept."""

    def __init__(
        self,
        memory: Memory,
        path: Callable[[], str],
        records: list[Record],
        decisions: list[str],
        embed: Embed | None = None,
    ) -> None:
        super().__init__(memory, path, embed)
        self.records, self.decided_before = records, decisions
        self.position = 0

    def is_linear(self, name: str, varying: tuple[Place, ...]) -> bool:
        """As the record that is met."""
        if self.position < len(self.records) and self.records[self.position].name == name:
            return self.records[self.position].is_linear
        return is_linear(name, varying)

    def linear(self, seen: Seen) -> Any:
        """Compare the constants, run on plain autograd."""
        constants = seen.constants()
        if seen.name in FIXED:
            output, _ = self.run_node(DependenceNode.apply, seen)
        else:
            output = self.run_linear(seen)
            if not (depends(output) or seen.word.in_place):
                return output
        record = self._meet(seen)
        if not are_equal((record.args, record.kwargs), constants):
            self._refuse_constants(record)
        return output

    def secant(self, seen: Seen) -> Any:
        """Compare the constants, run, and turn both sides into the pull of x's node."""
        record = self._meet(seen)
        self._compare(record, seen)
        if seen.word.in_place:
            self.memory.release(seen.args[0])
        kept = seen.detached()
        overwritten = {*record.overwritten, (0, 0)} if seen.word.in_place else record.overwritten
        for place in overwritten:
            if place[0] != 2:
                kept = put(kept, place, _at(kept, place).clone())
        output, value = self.run_node(DependenceNode.apply, seen)
        other = detach_all(value)
        if any(place[0] == 2 for place in overwritten):
            other = other.clone() if isinstance(other, Tensor) else tuple(entry.clone() for entry in other)
        record.pull = self._pull(
            record, Operation(
                record.name, record.function, record.args, record.kwargs, *kept, record.output, other, record.varying,
                record.rule, record.reciprocal,
            )
        )  # fmt: skip
        return output

    @staticmethod
    def _pull(record: Record, operation: Operation) -> Pull:
        try:
            with torch.no_grad():
                return SECANTS[record.name](operation)
        except RelevanceError as error:
            raise RelevanceError(f"{record.name} in {record.where}: {error}") from None

    def finish(self) -> None:
        """Check that r's pass met all records."""
        if self.position < len(self.records):
            record = self.records[self.position]
            self._refuse_alignment(f"x continues with {record.name} in {record.where}, r ends")

    def _meet(self, seen: Seen) -> Record:
        name = seen.name
        if self.position >= len(self.records):
            self._refuse_alignment(f"r continues with {name} in {where(self.path())}, x ends")
        record = self.records[self.position]
        self.position += 1
        if record.name != name or record.varying != seen.varying:
            self._refuse_alignment(f"x runs {record.name} in {record.where} where r runs {name}")
        return record

    def _compare(self, record: Record, seen: Seen) -> None:
        for place, r in zip(seen.varying, seen.operands, strict=True):
            x = _at(record.kwargs if isinstance(place[0], str) else record.args, place)
            if x.shape != r.shape:
                self._refuse_alignment(
                    f"{record.name} in {record.where} has shapes {tuple(x.shape)} and {tuple(r.shape)}"
                )
        ours = exchange(record.args, record.kwargs, record.varying, repeat(None))
        if not are_equal(ours, exchange(seen.args, seen.kwargs, seen.varying, repeat(None))):
            self._refuse_constants(record)

    def _refuse_constants(self, record: Record) -> NoReturn:
        cause = f" Before it the model runs {self._list_decisions()}." if self.decided_before else ""
        raise RelevanceError(
            f"{record.name} in {record.where} takes a value that depends on the input in a way that no gradient sees: "
            "it differs between x and the reference (a comparison, an index, .detach(), .item() or a drawn "
            f"number).{cause} Compute it from constants, or choose a reference on which it is the same."
        )

    def _refuse_alignment(self, what: str) -> NoReturn:
        cause = f" Before it the model runs {self._list_decisions()}." if self.decided_before else ""
        raise RelevanceError(
            f"the model does not run the same operations on x and on the reference: {what}.{cause} "
            "Choose a reference that takes the same branches."
        )

    def _list_decisions(self) -> str:
        return ", ".join(dict.fromkeys(self.decided_before[-3:]))


def _at(value: Any, place: Any) -> Any:
    for index in place:
        value = value[index]
    return value
