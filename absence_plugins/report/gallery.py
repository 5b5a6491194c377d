"""Public path of the gallery of directions; the drawing is in ``report.plots``."""

from absence_plugins.report.plots.directions import GalleryEntry, gallery_figure, gallery_panels

__all__ = ["GalleryEntry", "gallery_figure", "gallery_panels"]
