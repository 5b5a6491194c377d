"""What a text's tokens do to an output, and what the tokens do that only its reference has: the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.outputs import Logit, Margin, Output
from absence_plugins.core.printable import make_printable
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.token_pairs import Pair as Pair
from absence_plugins.core.wording import Names, Wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 30  # pairs that a table shows
SAID = 3  # of them that a repr says in words


@dataclass(frozen=True, eq=False, repr=False)
class TextComparison:
    """A text against one reference text, token by token. T tokens, T' of the reference, P pairs.

    **Sign**: R > 0 raises the explained output of the text compared with the reference.

    Attributes:
        text: the reference text.
        ids: its token ids [T'].
        tokens: the same as people read them.
        pairs: which token of the text stands for which of the reference, in order; None: there is none.
        relevance: R of every pair [P]; 0 for a pair that is the same in both at its own place, and for special tokens.
        special: the R of padding, class and separator tokens, which are no evidence.
        moved: what other positions do of tokens that both texts have: an insertion moves all behind it.
        output: u(r).
        way: "gaps": every token that only one text has was hidden from the attention of the other; "holes": the same
            where positions have no relevance, and ``moved`` is measured in forwards; "places": tokens were compared
            place by place, and R divided between the two that stand at one place.
    """

    text: str
    ids: Tensor
    tokens: tuple[str, ...]
    pairs: tuple[Pair, ...]
    relevance: Tensor
    special: float
    moved: float
    output: float
    way: str = "gaps"

    @property
    def missing(self) -> Tensor:
        """R of every token of the reference that the text lacks at its place [T']; 0 for those that it has.

        R > 0: the output is raised because this token is missing. The R of a token that another one replaces is that of
        the replacement, and stands in ``present``, too; :attr:`relevance` counts it once.
        """
        found = self.relevance.new_zeros(len(self.ids))
        for (_, other), value in zip(self.pairs, self.relevance, strict=True):
            if other is not None:
                found[other] = value
        return found

    @property
    def total(self) -> float:
        """The sum of everything: u(x) - u(r), to rounding."""
        return float(self.relevance.double().sum()) + self.special + self.moved

    def __repr__(self) -> str:
        return f"TextComparison({make_printable(self.text, keep='')!r}, u(r)={self.output:.4g}, {self.way})"

    def present(self, length: int) -> Tensor:
        """R of every token of the text [length]."""
        found = self.relevance.new_zeros(length)
        for (own, _), value in zip(self.pairs, self.relevance, strict=True):
            if own is not None:
                found[own] = value
        return found


@dataclass(frozen=True, eq=False, repr=False)
class TextExplanation(Result):
    """How the tokens of a text, and those that it lacks, make its output differ from that of reference texts.

    Attributes:
        text: the explained text.
        ids: its token ids [T].
        tokens: the same as people read them.
        kind: words and special tokens.
        output: u(x).
        explained: which output u is.
        comparisons: one per reference text; :attr:`missing`, :attr:`pairs`, :attr:`reference_ids` are of the first.
        names: of the classes.
        single: the model has one output.
    """

    text: str
    ids: Tensor
    tokens: tuple[str, ...]
    kind: TextKind
    output: float
    explained: Output
    comparisons: tuple[TextComparison, ...]
    names: Names = None
    single: bool = False

    @property
    def present(self) -> Tensor:
        """R of every token of the text, the mean over the references [T]. R > 0: it raises the output."""
        return torch.stack([one.present(len(self.ids)) for one in self.comparisons]).mean(0)

    @property
    def missing(self) -> Tensor:
        """R of every token of the first reference that the text lacks [T']. R > 0: that it is missing raises u."""
        return self.comparisons[0].missing

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Text and first reference, aligned."""
        return self.comparisons[0].pairs

    @property
    def reference_ids(self) -> Tensor:
        """Token ids of the first reference [T']."""
        return self.comparisons[0].ids

    @property
    def reference_tokens(self) -> tuple[str, ...]:
        """The same as people read them."""
        return self.comparisons[0].tokens

    @property
    def completeness_error(self) -> Tensor:
        """Sum of all R minus (u(x) - u(r)), for every reference [k] float64."""
        return torch.tensor([one.total - (self.output - one.output) for one in self.comparisons], dtype=torch.float64)

    def explained_words(self) -> str:
        """The explained output, as "logit 1 (positive)"."""
        one, names = self.explained, self.names
        if isinstance(one, Logit) and isinstance(one.index, int):
            return Wording("target" if one.sign == 1 else "negated", one.index, single=self.single).short(names)
        if isinstance(one, Margin) and isinstance(one.index, int) and isinstance(one.other, int):
            return Wording("margin", one.index, one.other).short(names)
        return one.describe()

    def words(self, most: int | None = None, *, reference: int = 0) -> list[str]:
        """What every token does that the text has and the reference has not, or the other way round; strongest first.

        As "the text lacks 'not', which the reference has: raises logit 1 (positive) by 2.3".
        """
        one, said = self.comparisons[reference], self.explained_words()
        order = one.relevance.abs().argsort(descending=True, stable=True).tolist()
        found = []
        for place in order:
            value = float(one.relevance[place])
            what = self._pair_words(one, one.pairs[place])
            if value and what:
                found.append(f"{what}: {'raises' if value > 0 else 'lowers'} {said} by {abs(value):.2g}")
        return found[:most]

    def _pair_words(self, one: TextComparison, pair: Pair) -> str:
        own, other = pair
        if own is None:
            token = _quote(one.tokens[other])  # type: ignore[index]
            if int(one.ids[other]) in self._unmatched(one, 0):
                return f"the text has {token} elsewhere than the reference"
            return f"the text lacks {token}, which the reference has"
        if other is None:
            has = "has elsewhere" if int(self.ids[own]) in self._unmatched(one, 1) else "has not"
            return f"the text has {_quote(self.tokens[own])}, which the reference {has}"
        if int(self.ids[own]) == int(one.ids[other]):
            return f"{_quote(self.tokens[own])} stands in another place"
        return f"the text has {_quote(self.tokens[own])} where the reference has {_quote(one.tokens[other])}"

    def _unmatched(self, one: TextComparison, side: int) -> set[int]:
        """Token ids of the text (side 0) or the reference (1) that stand for no like token of the other one."""
        ids = self.ids.tolist(), one.ids.tolist()
        pairs = [tuple(None if i is None else ids[s][i] for s, i in enumerate(pair)) for pair in one.pairs]
        return {found for pair in pairs if pair[0] != pair[1] and (found := pair[side]) is not None}

    def _heading(self) -> str:
        return f"Text: what raises {self.explained_words()}, and what is missing"

    def _grid(self) -> Grid:
        one = self.comparisons[0]
        shown = [place for place, value in enumerate(one.relevance.tolist()) if value]
        strongest = sorted(shown, key=lambda place: -abs(float(one.relevance[place])))[:ROWS]
        rows = [("in the text", "in the reference", "relevance")]
        for place in sorted(strongest):
            own, other = one.pairs[place]
            left = "(lacks it)" if own is None else _quote(self.tokens[own])
            right = "(lacks it)" if other is None else _quote(one.tokens[other])
            rows.append((left, right, f"{float(one.relevance[place]):+.4g}"))
        said = self.explained_words()
        foot = [f"and {len(shown) - ROWS} more pairs"] if len(shown) > ROWS else []
        foot.append(f"special tokens {one.special:+.4g}, tokens that others moved {one.moved:+.4g}")
        foot.append(f"u(x) - u(r) = {self.output:.4g} - {one.output:.4g} = {self.output - one.output:+.4g} of {said}")
        foot.append(f"above 0: raises {said} of the text compared with the reference; below 0: lowers it")
        if len(self.comparisons) > 1:
            foot.append(f"the first of {len(self.comparisons)} references")
        return Grid(tuple(rows), left=(0, 1), foot=tuple(foot))

    def figure(self, ax: Any = None, *, reference: int = 0, title: str | None = None, most: int | None = 160) -> Figure:
        """The text as colored tokens above one reference, in which those that the text lacks are outlined.

        ax: axes to draw into; None: a new figure; most: of longer texts the passages around the strongest tokens, about
        so many tokens; None: all. Needs matplotlib. The sign: red raises the explained output, blue holds it down.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no such reference.
        """
        from absence_plugins.report.plots.explained_text import text_explanation_figure

        return text_explanation_figure(self, ax=ax, reference=reference, title=title, most=most)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON."""
        return {
            "text": self.text,
            "tokens": list(self.tokens),
            "ids": self.ids.tolist(),
            "explained": self.explained_words(),
            "output": self.output,
            "present": self.present.tolist(),
            "references": [
                {
                    "text": one.text,
                    "tokens": list(one.tokens),
                    "ids": one.ids.tolist(),
                    "output": one.output,
                    "pairs": [list(pair) for pair in one.pairs],
                    "relevance": one.relevance.tolist(),
                    "missing": one.missing.tolist(),
                    "special": one.special,
                    "moved": one.moved,
                    "way": one.way,
                }
                for one in self.comparisons
            ],
        }

    def __repr__(self) -> str:
        count = len(self.comparisons)
        lines = [
            f"TextExplanation({len(self.ids)} tokens against {count} reference{'s' * (count > 1)}, {self.explained_words()}",
            f"u(x)={self.output:.4g}, u(r)={', '.join(f'{one.output:.4g}' for one in self.comparisons[:6])}",
            *self.words(SAID),
        ]
        return "\n  ".join(lines) + ")"


def _quote(token: str) -> str:
    """A token in quotes, without the blank that a tokenizer keeps with it; line breaks and the like as escapes."""
    return f"'{make_printable(token.strip(' ') or token, keep='')}'"
