"""What is explained, in words: for titles, the colors of a map, and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["target", "nontarget", "others", "negated", "margin"]
Names = Sequence[str] | Mapping[int, str] | None  # of the classes
GENERAL: dict[Kind, str] = {
    "target": "the target",
    "nontarget": "the non-target",
    "others": "the mean of all outputs but the target",
    "negated": "minus the target",
    "margin": "the target minus its runner-up",
}


@dataclass(frozen=True)
class Wording:
    """The explained output of one sample.

    target, other: class indices; position: of one pixel among outputs [B, K, H, W]; single: the model has one output;
    summed: of outputs [B, K, H, W] the sum over the image is meant.

    >>> Wording("nontarget", 7, 3).long({7: "espresso", 3: "cup"})
    'logit 3 (cup), which is not the target 7 (espresso)'
    >>> Wording("margin", 7, 3).legend()
    ('speaks for logit 7', 'speaks for logit 3')
    """

    kind: Kind
    target: int
    other: int | None = None
    position: tuple[int, ...] = ()
    single: bool = False
    summed: bool = False

    @staticmethod
    def general(kind: Kind) -> str:
        """In words that hold whatever the classes are."""
        return GENERAL[kind]

    def short(self, names: Names = None) -> str:
        """The explained output alone, as "logit 3 (cup)", "the sum of logit 3 over the image"."""
        said = self._brief(names)
        if self.summed:
            return f"{said}, each summed over the image" if self._several else f"the sum of {said} over the image"
        return said

    def long(self, names: Names = None) -> str:
        """With the target, where it is another output."""
        if self.kind == "nontarget":
            return f"{self.short(names)}, which is not the target {named_class(self.target, names)}"
        return self.short(names)

    def heading(self, names: Names = None) -> str:
        """The title of a map, as a person would say what to look at; :meth:`long` names the outputs exactly.

        >>> cup = {3: "cup", 7: "espresso"}
        >>> Wording("nontarget", 7, 3).heading(cup), Wording("nontarget", 7, 3).heading()
        ("What holds 'cup' down", 'What holds logit 3 down')
        >>> Wording("margin", 7, 3).heading(cup)
        "What speaks for 'espresso' rather than 'cup'"
        """
        said = self._asked(names)
        return f"{said}, summed over the image" if self.summed else said

    def _asked(self, names: Names) -> str:
        own = self._called(self.target, names)
        if self.other is not None and self.kind == "nontarget":
            return f"What holds {self._called(self.other, names)} down"
        if self.other is not None and self.kind == "margin":
            return f"What speaks for {own} rather than {self._called(self.other, names)}"
        if self.kind == "others":
            return f"What holds all outputs but {own} down"
        return f"What holds {own} down" if self.kind == "negated" else f"What raises {own} or holds it down"

    def legend(self, names: Names = None) -> tuple[str, str]:
        """What red and blue mean."""
        own = self._output(self.target, names)
        if self.kind == "margin" and self.other is not None:
            return f"speaks for {own}", f"speaks for {self._output(self.other, names)}"
        if self.kind == "negated":
            return f"holds {own} down", f"raises {own}"
        return f"raises {self._brief(names)}", f"holds {self._brief(names)} down"

    @property
    def _several(self) -> bool:
        return self.kind in ("margin", "others")

    def _brief(self, names: Names) -> str:
        own = self._output(self.target, names)
        if self.other is not None and self.kind == "nontarget":
            return self._output(self.other, names)
        if self.other is not None and self.kind == "margin":
            return f"{own} minus {self._output(self.other, names)}"
        if self.kind == "others":
            return f"the mean of all logits but the target {named_class(self.target, names)}{self._where}"
        return f"minus {own}" if self.kind == "negated" else own

    def _output(self, index: int, names: Names) -> str:
        return "the output" if self.single else f"logit {named_class(index, names)}{self._where}"

    def _called(self, index: int, names: Names) -> str:
        """A class by its name alone, where it has one."""
        name = name_of_class(index, names)
        return self._output(index, names) if self.single or name is None else f"'{name}'{self._where}"

    @property
    def _where(self) -> str:
        if not self.position or self.single:
            return ""
        return f" at {self.position[0] if len(self.position) == 1 else self.position}"


QUESTIONS: dict[str, str] = {
    "runner_up": "the non-target: the highest output but the target",
    "auto": "the non-target: the highest output but the target (with a reference, or of a single output: the target)",
    **{kind: GENERAL[kind] for kind in ("target", "others", "negated", "margin")},
}


def describe_question(nontarget: Any) -> str:
    """What an adapter explains, in words: of its option ``nontarget``.

    >>> describe_question("margin"), describe_question(3), describe_question(None)
    ('the target minus its runner-up', 'the non-target: logit 3', 'the target')
    """
    if nontarget is None:
        return "the target"
    if isinstance(nontarget, str):
        return QUESTIONS.get(nontarget, nontarget)
    if callable(nontarget):
        return f"the non-target that {getattr(nontarget, '__name__', 'a function')} chooses"
    return f"the non-target: logit {nontarget}" if isinstance(nontarget, int) else "the non-target: one per sample"


def describe_signs(nontarget: Any) -> tuple[str, str]:
    """What red and blue mean, whatever the classes are.

    >>> describe_signs("margin"), describe_signs("runner_up")
    (('speaks for the target', 'speaks for its runner-up'), ('raises the explained output', 'holds it down'))
    """
    if isinstance(nontarget, str) and nontarget == "margin":
        return "speaks for the target", "speaks for its runner-up"
    if isinstance(nontarget, str) and nontarget == "negated":
        return "holds the target down", "raises the target"
    return "raises the explained output", "holds it down"


def named_class(index: int, names: Names) -> str:
    """A class's number, with its name where there is one.

    >>> named_class(3, ["a", "b", "c", "cup"]), named_class(3, {1: "b"}), named_class(3, None)
    ('3 (cup)', '3', '3')
    """
    name = name_of_class(index, names)
    return str(index) if name is None else f"{index} ({name})"


def name_of_class(index: int, names: Names) -> str | None:
    """A class's name; None where there is none.

    >>> name_of_class(1, ["a", "b"]), name_of_class(2, ["a", "b"])
    ('b', None)
    """
    if isinstance(names, Mapping):
        return names.get(index)
    return names[index] if names is not None and index < len(names) else None
