"""What was found, as figures and as one self-contained HTML page; nothing is computed here.

Red raises the explained output, blue holds it down, zero is white, and every map says so in its
color bar. :mod:`~absence_plugins.report.plots.maps` draws maps, :mod:`~absence_plugins.report.pages.page`
puts them on a page.
"""

try:
    import jinja2 as _jinja2  # noqa: F401  both are checked here once, for every module of report
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'absence_plugins.report needs matplotlib and jinja2 ({error}); pip install "absence-plugins[report]"'
    ) from error

from typing import TYPE_CHECKING, Any

from absence_plugins.report.pages.kinds import KindRow, write_kind_page
from absence_plugins.report.pages.page import Page, Row, Table, page_html, write_page
from absence_plugins.report.plots.kinds import kind_figure
from absence_plugins.report.plots.maps import draw_panel, panel_figure, row_figure
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.segmentation import segmentation_figure
from absence_plugins.report.plots.sides import Side, unit_figure, unit_panels
from absence_plugins.report.plots.signal import signal_figure
from absence_plugins.report.plots.signed import signed_figure, signed_panels
from absence_plugins.report.plots.table_row import table_figure
from absence_plugins.report.plots.text import text_figure
from absence_plugins.report.plots.volume import volume_figure

if TYPE_CHECKING:
    from absence_plugins.report.unit import UnitReport, explain_unit

__all__ = [
    "KindRow",
    "Page",
    "Panel",
    "Row",
    "Side",
    "Table",
    "UnitReport",
    "draw_panel",
    "explain_unit",
    "kind_figure",
    "page_html",
    "panel_figure",
    "row_figure",
    "segmentation_figure",
    "signal_figure",
    "signed_figure",
    "signed_panels",
    "table_figure",
    "text_figure",
    "unit_figure",
    "unit_panels",
    "volume_figure",
    "write_kind_page",
    "write_page",
]


def __getattr__(name: str) -> Any:  # a unit's report needs all methods, a page none of them
    if name not in ("UnitReport", "explain_unit"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from absence_plugins.report import unit

    found = globals()[name] = getattr(unit, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
