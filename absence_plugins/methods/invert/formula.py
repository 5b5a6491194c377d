"""Boolean formulas over named concepts: built with ``&``, ``|``, ``~``, printed to be read, parsed back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.nearest import describe_nearest
from absence_plugins.methods.invert.inputs import Truth, as_truth, check_names

AND, OR, NOT = "AND", "OR", "NOT"
_OTHER = {AND: OR, OR: AND}
_TOKEN = re.compile(r'\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<paren>[()])|(?P<word>[^\s()"]+))', re.DOTALL)


@dataclass(frozen=True, eq=False, repr=False)
class Formula:
    r"""An immutable formula of concepts joined by AND, OR and NOT, in which NOT stands in front of concepts only.

    ``~(a & b)`` becomes ``~a | ~b`` (De Morgan), nested ANDs (ORs) become one, and duplicates go: ``a & a`` is ``a``,
    ``a & (a | b)`` is ``a``. Two formulas are equal if they are the same up to the order of their parts; whether two
    spellings say the same of given samples is :meth:`same_truth`. A name may be any string; one that could not be read
    back (``AND``, parentheses, odd blanks) is printed in quotes.

    Args:
        name: of the concept; ``Formula("dog")`` is the formula that holds where the concept does.
        negated: whether it holds where the concept does not.
        operator, parts: of a chain; made by ``&`` and ``|``.

    Raises:
        TypeError: a name that is not a string, or ``&`` and ``|`` with something that is not a formula.

    >>> dog, leash = Formula("dog"), Formula("leash")
    >>> dog & ~leash
    Formula('dog AND NOT leash')
    >>> ~(dog & ~leash) == Formula.parse("leash OR NOT dog")
    True
    """

    name: str = ""
    negated: bool = False
    operator: str = ""
    parts: tuple[Formula, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a concept's name must be a string, got {self.name!r}")
        if self.operator and (self.operator not in _OTHER or len(self.parts) < 2):
            raise ValueError(f"operator={self.operator!r} of {len(self.parts)} parts: build chains with & and |")

    def __and__(self, other: Formula) -> Formula:
        return _chain(AND, (self, other)) if isinstance(other, Formula) else NotImplemented

    def __or__(self, other: Formula) -> Formula:
        return _chain(OR, (self, other)) if isinstance(other, Formula) else NotImplemented

    def __invert__(self) -> Formula:
        if not self.operator:
            return Formula(self.name, not self.negated)
        return _chain(_OTHER[self.operator], tuple(~part for part in self.parts))

    @property
    def literals(self) -> tuple[tuple[str, bool], ...]:
        """(name, negated) of every concept as it stands there, from left to right."""
        if not self.operator:
            return ((self.name, self.negated),)
        return tuple(literal for part in self.parts for literal in part.literals)

    @property
    def length(self) -> int:
        """Number of literals."""
        return len(self.literals)

    @property
    def negations(self) -> int:
        """Number of NOTs."""
        return sum(negated for _, negated in self.literals)

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct concepts."""
        return tuple(dict.fromkeys(name for name, _ in self.literals))

    def without(self, index: int) -> Formula | None:
        """The formula without its literal number ``index``; None if nothing is left.

        >>> print(Formula.parse("(a OR b) AND NOT c").without(0))
        b AND NOT c
        """
        if not 0 <= index < self.length:
            raise ValueError(f"literal {index} does not exist: {self} has {self.length}")
        if not self.operator:
            return None
        kept: list[Formula] = []
        for part in self.parts:
            length = part.length
            rest = part.without(index) if 0 <= index < length else part
            index -= length
            kept += [] if rest is None else [rest]
        return _chain(self.operator, tuple(kept))

    def context(self, index: int) -> Formula | None:
        """Where the literal number ``index`` decides the truth: what joins it by AND holds, what joins it by OR fails.

        None for a formula that is one literal: it decides everywhere.

        >>> print(Formula.parse("(a OR b) AND NOT c").context(2), "|", Formula.parse("(a OR b) AND NOT c").context(0))
        a OR b | NOT b AND NOT c
        """
        if not 0 <= index < self.length:
            raise ValueError(f"literal {index} does not exist: {self} has {self.length}")
        result: Formula | None = None
        for part in self.parts:
            other = part if self.operator == AND else ~part
            needed = part.context(index) if 0 <= index < part.length else other
            index -= part.length
            result = needed if result is None else result if needed is None else result & needed
        return result

    def ordered(self, order: Mapping[str, int]) -> Formula:
        """The same, to be read: concepts first in the given order, then groups, then NOTs.

        >>> print(Formula.parse("NOT b AND a").ordered({"a": 0, "b": 1}))
        a AND NOT b
        """
        if not self.operator:
            return self

        def place(part: Formula) -> tuple[int, tuple[int, ...], str]:
            kind = 1 if part.operator else 2 if part.negated else 0
            return kind, tuple(order[name] for name, _ in part.literals), str(part)

        parts = sorted((part.ordered(order) for part in self.parts), key=place)
        return Formula(operator=self.operator, parts=tuple(parts))

    def fold(self, column: Callable[[str], Any]) -> Any:
        """The formula's value from its concepts' values, which have ``&``, ``|`` and ``~`` (arrays, tensors,
        truths).
        """
        if not self.operator:
            value = column(self.name)
            return ~value if self.negated else value
        first, *rest = (part.fold(column) for part in self.parts)
        for value in rest:
            first = first & value if self.operator == AND else first | value
        return first

    def evaluate(self, concepts: Any, names: Sequence[str]) -> Tensor:
        """Where the formula holds: concepts [N, K] of 0 and 1 -> [N] bool, on their device.

        With unknown labels (NaN): [N] float64 of 0, 1 and, where the formula is unknown, NaN.

        Raises:
            ValueError: labels other than 0, 1 and NaN, a number of names that is not K, a concept that is not among
                them.

        >>> Formula.parse("dog AND NOT leash").evaluate(torch.tensor([[1, 0], [1, 1]]), ["dog", "leash"])
        tensor([ True, False])
        """
        return self.truth(concepts, names).values()

    def truth(self, concepts: Any, names: Sequence[str]) -> Truth:
        """Where it holds and where it fails, two masks [N]: concepts [N, K] of 0, 1 and NaN (unknown), Kleene's logic.

        Raises:
            ValueError: as :meth:`evaluate`.

        >>> Formula.parse("dog AND leash").truth([[0, None], [1, None]], ["dog", "leash"]).known
        tensor([ True, False])
        """
        labels = as_truth(concepts)
        place = {name: k for k, name in enumerate(check_names(names, labels.true.shape[1]))}
        for name in self.names:
            if name not in place:
                raise ValueError(
                    f"concept {name!r} of {self} is not among the names; there are: {describe_nearest(name, place)}"
                )
        result: Truth = self.fold(lambda name: labels[:, place[name]])
        return result

    def same_truth(self, other: Formula, concepts: Any, names: Sequence[str]) -> bool:
        """Whether both hold, and fail, on the same samples of ``concepts`` [N, K].

        >>> labels = torch.tensor([[1, 1], [0, 0]])
        >>> Formula("dog").same_truth(Formula("dog") & Formula("pet"), labels, ["dog", "pet"])
        True
        """
        one, two = self.truth(concepts, names), other.truth(concepts, names)
        return bool(torch.equal(one.true, two.true) and torch.equal(one.false, two.false))

    @classmethod
    def parse(cls, text: str) -> Formula:
        """From its printed form: NOT binds before AND, AND before OR; names with blanks need no quotes.

        Raises:
            ValueError: where the text stops making sense.

        >>> Formula.parse('NOT (black dog OR "AND")')
        Formula('NOT black dog AND NOT "AND"')
        """
        if not isinstance(text, str):
            raise TypeError(f"a formula is parsed from a string, got {text!r}")
        reader = _Reader(text)
        formula = reader.disjunction()
        if reader.kind:
            raise reader.error("AND, OR or the end")
        return formula

    def __str__(self) -> str:
        if not self.operator:
            return f"{NOT} {_spell(self.name)}" if self.negated else _spell(self.name)
        return f" {self.operator} ".join(f"({part})" if part.operator else str(part) for part in self.parts)

    def __repr__(self) -> str:
        return f"Formula({str(self)!r})"

    @property
    def _key(self) -> Any:
        return (
            (self.operator, frozenset(p._key for p in self.parts)) if self.operator else (self.name, self.negated, "")
        )

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Formula) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def to_dict(self) -> dict[str, Any]:
        """Printed form, length and literals."""
        return {"text": str(self), "length": self.length, "literals": [list(literal) for literal in self.literals]}


def _chain(operator: str, parts: Sequence[Formula]) -> Formula:
    """AND or OR of parts: nested chains of the same kind are opened, duplicates and absorbed parts left out."""
    flat = dict.fromkeys(
        inner for part in parts for inner in (part.parts if part.operator == operator else (part,))
    )  # fmt: skip
    kept = tuple(p for p in flat if not any(q in p.parts for q in flat if p.operator == _OTHER[operator]))
    return kept[0] if len(kept) == 1 else Formula(operator=operator, parts=kept)


def _spell(name: str) -> str:
    words = name.split()
    plain = words and " ".join(words) == name and not any(word in (AND, OR, NOT) for word in words)
    return name if plain and not set('()"') & set(name) else json.dumps(name, ensure_ascii=False)


class _Reader:
    """Recursive descent over the tokens of a formula; a bare name is all words up to a keyword or parenthesis."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.next()

    def _tokens(self) -> Iterator[tuple[str, str, int]]:
        at, end = 0, len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if not match:
                raise ValueError(f"formula {self.text!r}: a quote is opened at character {at} and not closed")
            kind = str(match.lastgroup)
            value = match[kind]
            if kind == "word" and value in (AND, OR, NOT):
                kind = value
            yield kind, value, match.start(kind if kind in ("quoted", "paren", "word") else "word")
            at = match.end()
        yield "", "", end

    def next(self) -> None:
        self.kind, self.value, self.at = next(self.tokens)

    def error(self, wanted: str) -> ValueError:
        found = repr(self.value) if self.kind else "the end"
        return ValueError(f"formula {self.text!r}: {wanted} expected at character {self.at}, found {found}")

    def disjunction(self) -> Formula:
        parts = [self.conjunction()]
        while self.kind == OR:
            self.next()
            parts.append(self.conjunction())
        return _chain(OR, parts)

    def conjunction(self) -> Formula:
        parts = [self.factor()]
        while self.kind == AND:
            self.next()
            parts.append(self.factor())
        return _chain(AND, parts)

    def factor(self) -> Formula:
        if self.kind == NOT:
            self.next()
            return ~self.factor()
        if self.value == "(" and self.kind == "paren":
            self.next()
            inner = self.disjunction()
            if self.value != ")" or self.kind != "paren":
                raise self.error("a closing parenthesis")
            self.next()
            return inner
        if self.kind == "quoted":
            try:
                name = json.loads(self.value, strict=False)
            except json.JSONDecodeError as error:
                raise ValueError(f"formula {self.text!r}: the name {self.value} cannot be read ({error.msg})") from None
            self.next()
            return Formula(name)
        words = []
        while self.kind == "word":
            words.append(self.value)
            self.next()
        if not words:
            raise self.error("a concept")
        return Formula(" ".join(words))
