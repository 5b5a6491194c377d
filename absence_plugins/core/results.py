"""What every result offers: ``table()``, ``figure(ax=None)``, ``to_dict()``, and how a notebook shows it."""

from __future__ import annotations

import base64
import html
import io
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from absence_plugins.core.interrupts import uncut
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP = "absence_plugins.results"  # entry points: what core may not import itself
_DPI = 110  # of a figure in a notebook, so that it takes some ten kilobytes


class Shown:
    """What a notebook shows as a heading and a table, every text escaped: a subclass writes ``_grid``."""

    def _grid(self) -> Grid:
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def _heading(self) -> str:
        return type(self).__name__

    def _table_html(self) -> str:
        return self._grid().html()

    def _picture_html(self) -> str:
        return ""

    def _repr_html_(self) -> str:
        heading = f"<div><b>{html.escape(self._heading())}</b></div>"
        return f"<div>{heading}{self._table_html()}{self._picture_html()}</div>"


class Result(Shown):
    """The surface that all results share; a notebook shows heading, table and figure.

    A subclass writes ``_grid`` (or ``table``), ``figure`` and ``to_dict``.

    >>> class Count(Result):
    ...     def _grid(self):
    ...         return Grid((("what", "number"), ("<cats>", "3")))
    >>> print(Count().table())
    what    number
    <cats>       3
    >>> "&lt;cats&gt;" in Count()._repr_html_()
    True
    """

    def table(self) -> str:
        """The numbers as text, in aligned columns."""
        return self._grid().text()

    def figure(self, *args: Any, **kwargs: Any) -> Figure:
        """The result as a picture: a new figure, or with ``ax=`` drawn into these axes."""
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def _table_html(self) -> str:
        if type(self)._grid is not Result._grid:
            return self._grid().html()
        return f'<pre style="line-height:1.3">{html.escape(self.table())}</pre>'

    def _picture_html(self) -> str:
        """The figure as a PNG inside the page; where none can be drawn, the reason (matplotlib or images missing)."""
        try:
            return picture_html(self.figure(), self._heading())
        except NotImplementedError:
            return ""
        except (ImportError, ValueError) as error:
            return f"<div><i>no figure: {html.escape(str(error))}</i></div>"


def picture_html(figure: Figure, words: str) -> str:
    """A figure as an image element that holds its PNG; ``words``: for people who cannot see it."""
    buffer = io.BytesIO()
    # tight: at a low resolution hinting makes letters wider than they were measured
    with uncut():  # matplotlib's compiled part turns an exception of Ctrl-C into another one
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    pixels = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" style="max-width:100%" src="data:image/png;base64,{pixels}">'


def load_registered(name: str) -> Any:
    """What a package has registered in the entry point group ``absence_plugins.results`` under a name.

    So a class of ``core``, which may import nothing but torch, is drawn and saved by the layers above it.

    Raises:
        ImportError: nothing is registered (the package is not installed), or what it needs is missing; with the remedy.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise ImportError(
            f"{name!r} is not registered (entry point group {GROUP}), because absence_plugins is not installed as a "
            "package, or by an older version; install it: pip install -e . in its folder"
        )
    return found[0].load()
