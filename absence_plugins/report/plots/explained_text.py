"""What ``explain_text`` found, as a figure: the text above its reference, both colored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from absence_plugins.report.plots.text import MOST, ReadText, draw_text, read_text

if TYPE_CHECKING:
    from absence_plugins.methods.texts.result import TextExplanation


def text_explanation_figure(
    explanation: TextExplanation,
    *,
    ax: Any = None,
    reference: int = 0,
    title: str | None = None,
    most: int | None = MOST,
) -> Figure:
    """:meth:`TextExplanation.figure`: colored tokens, and below them, outlined, those that only the reference has.

    Args:
        explanation: of ``absence_plugins.methods.texts.explain_text``.
        ax: axes to draw into; None: a new figure.
        reference: which of its reference texts is compared.
        title: above; None: what is explained.
        most: of longer texts the passages around the strongest tokens, about so many tokens; None: all.

    The sign: red raises the explained output of the text compared with the reference, blue holds it down.

    Raises:
        ValueError: no such reference.
    """
    said = explanation.explained_words()
    return draw_text(
        read_explained_text(explanation, reference),
        most=most,
        ax=ax,
        title=f"What raises {said} or holds it down" if title is None else title,
        positive=f"raises {said}",
        negative=f"holds {said} down",
    )


def read_explained_text(explanation: TextExplanation, reference: int = 0) -> ReadText:
    """The tokens of the text and of one reference with their colors.

    Raises:
        ValueError: no such reference.
    """
    count = len(explanation.comparisons)
    if not 0 <= reference < count:
        raise ValueError(f"reference={reference} does not exist; there are {count}, from 0")
    one = explanation.comparisons[reference]
    read = read_text(
        explanation.kind,
        one.present(len(explanation.ids)),
        explanation.ids,
        one.ids,
        reference_signed=one.missing,
        pairs=one.pairs,
    )
    said = f"Reference {reference + 1} of {count}." if count > 1 else ""
    return replace(read, hidden=one.special, moved=one.moved, compared=said)
