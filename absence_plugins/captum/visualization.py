"""``captum.attr.visualization`` with texts in red and blue: every name of Captum's, and ours for texts.

``visualize_text`` takes Captum's ``VisualizationDataRecord`` and those of :func:`text_record`. Captum's figure is green
above zero and red below; this one, as every figure of this package, is **red above zero** (the token raises what is
explained) **and blue below** (it holds it down), and says so. Tokens and labels are escaped; padding and special tokens
are gray.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from captum.attr import visualization as _host
from captum.attr._utils.visualization import VisualizationDataRecord
from torch import Tensor

from absence_plugins.captum.text_records import GENERAL, TextRecord, flag_special, text_record
from absence_plugins.core.printable import make_printable
from absence_plugins.core.signed_colors import blend_sign

GRAY = "#6e7781"
PALE = 3  # steps of the scale: letters in black are read on all of them
HEADS = ("True Label", "Predicted Label", "Explained", "Attribution Score", "Word Importance")
__all__ = ["TextPage", "TextRecord", "VisualizationDataRecord", "text_record", "visualize_text"]


class TextPage:
    """A table as HTML, which notebooks show; ``data``: the source."""

    def __init__(self, data: str) -> None:
        self.data = data

    def _repr_html_(self) -> str:
        return self.data

    def __repr__(self) -> str:
        return f"TextPage({len(self.data)} characters of HTML)"


def visualize_text(datarecords: Iterable[VisualizationDataRecord], legend: bool = True) -> TextPage:
    """A table of texts with their tokens in red and blue; in a notebook it is shown.

    Args:
        datarecords: of :func:`text_record`, or Captum's. Their attributions may be of any size: the strongest token of
            all records has the full color. A record with a reference has a second line: the nearest reference's tokens
            where they are others, in the color of what they do by being missing.
        legend: whether the colors are explained.

    Returns:
        An object that notebooks show; ``.data`` is HTML in which tokens and labels are escaped.

    Raises:
        ValueError: values that are no numbers.

    The sign: red raises the explained output, blue holds it down.

    >>> record = text_record(torch.tensor([1.0, -1.0]), raw_input_ids=["good", "<script>"])
    >>> "&lt;script&gt;" in visualize_text([record]).data, "<script>" in visualize_text([record]).data
    (True, False)
    """
    records = list(datarecords)
    limit = max((_largest(record) for record in records), default=0.0) or 1.0
    head = "".join(f'<th style="text-align:left;padding:2px 12px 2px 0">{one}</th>' for one in HEADS)
    rows = "".join(_row(record, limit) for record in records)
    said = _legend(records, limit) if legend else ""
    page = TextPage(
        f'<div style="overflow-x:auto;color:#1f2328;background:#ffffff">{said}<table style="border-collapse:collapse">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    _display(page)
    return page


def __getattr__(name: str) -> Any:
    """Everything else of ``captum.attr.visualization`` is Captum's."""
    if name.startswith("__") or not hasattr(_host, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}, nor has 'captum.attr.visualization'")
    return getattr(_host, name)


def _values(record: VisualizationDataRecord) -> list[float]:
    """One number for each token.

    Raises:
        ValueError: fewer numbers than tokens, or NaN.
    """
    values = torch.as_tensor(record.word_attributions).detach().double().flatten().tolist()
    if len(values) < len(record.raw_input_ids):
        raise ValueError(f"{len(record.raw_input_ids)} tokens for {len(values)} attributions; pass one for each")
    if not all(map(math.isfinite, values)):
        raise ValueError("the attributions hold NaN or infinite values")
    return values[: len(record.raw_input_ids)]


def _special(record: VisualizationDataRecord) -> tuple[bool, ...]:
    return record.special if isinstance(record, TextRecord) else flag_special(record.raw_input_ids, None)


def _largest(record: VisualizationDataRecord) -> float:
    shown = [abs(v) for v, is_special in zip(_values(record), _special(record), strict=True) if not is_special]
    if isinstance(record, TextRecord) and record.reference_tokens is not None:
        assert record.reference_attributions is not None
        pairs = zip(record.reference_tokens, record.reference_attributions.tolist(), strict=True)
        shown += [abs(value) for token, value in pairs if token is not None]
    return max(shown, default=0.0)


def _row(record: VisualizationDataRecord, limit: float) -> str:
    values, special = _values(record), _special(record)
    cells = [_said(record.true_class), _predicted(record), _said(record.attr_class), _score(record, values, special)]
    text = "".join(
        _token(token, value, limit, is_special=is_special)
        for token, value, is_special in zip(record.raw_input_ids, values, special, strict=True)
    )
    if isinstance(record, TextRecord) and record.reference_tokens is not None:
        assert record.reference_attributions is not None
        pairs = zip(record.reference_tokens, record.reference_attributions.tolist(), strict=True)
        missing = [_token(token, value, limit) for token, value in pairs if token is not None]
        if missing:
            text += f'<div style="color:{GRAY}">only in the nearest reference: {"".join(missing)}</div>'
    cell = '<td style="vertical-align:top;padding:2px 12px 2px 0">'
    return (
        "<tr>"
        + "".join(f"{cell}{one}</td>" for one in cells)
        + f"{cell.replace('2px 0', '2px 0;line-height:1.9')}{text}</td></tr>"
    )


def _token(token: str, value: float, limit: float, *, is_special: bool = False) -> str:
    shown = make_printable(str(token), keep="").strip() or "\u2423"  # a token of blanks
    title = html.escape(f"{value:+.4g}" + (", a special token: no evidence" if is_special else ""))
    style = f"color:{GRAY}" if is_special else f"color:#000000;background-color:{blend_sign(value / limit, steps=PALE)}"
    return f'<bdi title="{title}" style="padding:1px 3px;border-radius:3px;{style}">{html.escape(shown)}</bdi> '


def _said(value: Any) -> str:
    return (
        "" if value is None else html.escape(make_printable(str(value.item() if isinstance(value, Tensor) else value)))
    )


def _predicted(record: VisualizationDataRecord) -> str:
    own = _said(record.pred_class)
    return own if record.pred_prob is None else f"{own} ({float(record.pred_prob):.2f})".strip()


def _score(record: VisualizationDataRecord, values: Sequence[float], special: Sequence[bool]) -> str:
    own = f"{float(record.attr_score):.2f}"
    share = sum(value for value, is_special in zip(values, special, strict=True) if is_special)
    gross = sum(map(abs, values))
    return own if abs(share) <= 0.005 * gross else f"{own}<br>(special tokens: {share:+.2f})"


def _legend(records: Sequence[VisualizationDataRecord], limit: float) -> str:
    own = {record.legend if isinstance(record, TextRecord) else GENERAL for record in records}
    red, blue = own.pop() if len(own) == 1 else GENERAL
    swatch = '<span style="display:inline-block;width:10px;height:10px;border:1px solid {};background:{}"></span> {}'
    parts = [
        swatch.format(GRAY, blend_sign(1, steps=PALE), html.escape(f"red (above 0) {red}")),
        swatch.format(GRAY, blend_sign(-1, steps=PALE), html.escape(f"blue (below 0) {blue}")),
        f"full color: {limit:.3g}",
        "gray: padding and special tokens",
    ]
    return f'<div style="padding-bottom:6px">{"; ".join(parts)}</div>'


def _display(page: TextPage) -> None:
    """Show a page where a notebook runs, as Captum does."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        display(page)  # type: ignore[no-untyped-call]
