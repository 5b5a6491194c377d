"""Public path of :func:`label_figure` and :func:`label_panels`; the drawing is in ``report.plots``."""

from absence_plugins.report.plots.labels import label_figure, label_panels

__all__ = ["label_figure", "label_panels"]
