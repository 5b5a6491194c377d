"""What an attribution of a language model returns: Captum's result, in words, with red above zero and blue below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from captum.attr import LLMAttributionResult
from torch import Tensor

from absence_plugins.core.signed_colors import BLUES, REDS

RED, BLUE = REDS[3], BLUES[3]


@dataclass(frozen=True)
class Contrast:
    """What is explained: the tokens of the answer and of the foil (None: without one), and which quantity of theirs."""

    answer: list[str]
    foil: list[str] | None = None
    quantity: str = "log p"

    def words(self) -> str:
        """As "log p('golf') - log p('tennis')"."""
        own = f"{self.quantity}({_quoted(self.answer)})"
        return own if self.foil is None else f"{own} - {self.quantity}({_quoted(self.foil)})"

    def legend(self) -> tuple[str, str]:
        """What red and blue mean."""
        if self.foil is None:
            return f"raises {self.words()}", f"holds {self.words()} down"
        return f"speaks for {_quoted(self.answer)}", f"speaks for {_quoted(self.foil)}"


class AbsenceLLMAttributionResult(LLMAttributionResult):
    """Captum's LLMAttributionResult, with what is explained in words, and of a contrast both answers' own results.

    Attributes:
        seq_attr: the signed map [tokens of the prompt]. R > 0 raises log p(answer), or speaks for the answer; R < 0
            holds it down, or speaks for the foil.
        token_attr: the same of every token of the answer [tokens of the answer, tokens of the prompt]; None of a
            contrast, whose answers have tokens of their own: ``answer.token_attr``, ``foil.token_attr``.
        contrast: the answers and the quantity.
        answer, foil: the results of both; ``seq_attr`` is their difference, bit for bit. None without a foil, and
            of methods that fit the difference itself (Lime, KernelShap).

    Figures: Captum's, but red is above zero and blue below (Captum's bars have blue above, its heat map green).
    """

    contrast: Contrast
    answer: AbsenceLLMAttributionResult | None = None
    foil: AbsenceLLMAttributionResult | None = None

    @classmethod
    def of(cls, found: LLMAttributionResult, *, quantity: str) -> AbsenceLLMAttributionResult:
        """A result without a foil; the same numbers."""
        made = cls(
            input_tokens=found.input_tokens,
            output_tokens=found.output_tokens,
            seq_attr=found.seq_attr,
            token_attr=found.token_attr,
            output_probs=found.output_probs,
            inp=found.inp,
        )
        made.contrast = Contrast(found.output_tokens, quantity=quantity)
        return made

    @classmethod
    def single(cls, signed: Tensor, contrast: Contrast, inp: Any) -> AbsenceLLMAttributionResult:
        """The map of a difference that was fitted as one number [tokens of the prompt]."""
        made = cls(input_tokens=inp.values, output_tokens=contrast.answer, seq_attr=signed, inp=inp)
        made.contrast = contrast
        return made

    @classmethod
    def difference(
        cls, answer: LLMAttributionResult, foil: LLMAttributionResult, contrast: Contrast
    ) -> AbsenceLLMAttributionResult:
        """The answer's map minus the foil's."""
        signed = answer.seq_attr - foil.seq_attr
        made = cls(
            input_tokens=answer.input_tokens, output_tokens=answer.output_tokens, seq_attr=signed, inp=answer.inp
        )
        made.contrast = contrast
        made.answer, made.foil = (cls.of(one, quantity=contrast.quantity) for one in (answer, foil))
        return made

    def words(self) -> str:
        """What is explained, as "log p('golf') - log p('tennis')"."""
        return self.contrast.words()

    def legend(self) -> tuple[str, str]:
        """What red (above zero) and blue (below) mean."""
        return self.contrast.legend()

    def __repr__(self) -> str:
        red, blue = self.legend()
        pairs = zip(self.input_tokens, self.seq_attr.tolist(), strict=True)
        shown = ", ".join(f"{token!r}: {number:.4g}" for token, number in pairs)
        return f"{type(self).__name__}(explained: {self.words()},\n  red {red}, blue {blue},\n  {shown})"

    def plot_seq_attr(self, show: bool = False) -> Any:
        """Captum's bars, red above zero and blue below, with what both mean at the axis."""
        figure, axes = super().plot_seq_attr(show=False)
        for bars, color in zip(axes.containers, (RED, BLUE), strict=True):
            for bar in bars:
                bar.set_facecolor(color)
        axes.set_ylabel(self._said())
        return self._shown(figure, axes, show)

    def plot_token_attr(self, show: bool = False) -> Any:
        """Captum's heat map in red and blue, with what both mean at the color bar."""
        if self.token_attr is None and self.answer is not None:
            raise ValueError(
                "a contrast has no row per token of the answer, as the foil has tokens of its own; plot "
                ".answer.plot_token_attr() and .foil.plot_token_attr(), or plot_seq_attr()"
            )
        figure, axes = super().plot_token_attr(show=False)
        figure.axes[-1].set_ylabel(self._said(), rotation=-90, va="bottom")
        return self._shown(figure, axes, show)

    def _said(self) -> str:
        return "red (above 0): {}\nblue (below 0): {}".format(*self.legend())

    def _get_plot_color_map(self) -> Any:
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("signed", [*BLUES[:0:-1], *REDS], N=257)

    @staticmethod
    def _shown(figure: Any, axes: Any, show: bool) -> Any:
        if not show:
            return figure, axes
        import matplotlib.pyplot as plt

        plt.show()
        return None


def _quoted(tokens: list[str]) -> str:
    return repr(" ".join(tokens))
