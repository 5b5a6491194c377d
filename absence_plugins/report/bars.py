"""Public path of :func:`bars`; the drawing is in ``report.plots``."""

from absence_plugins.report.plots.bars import bars

__all__ = ["bars"]
