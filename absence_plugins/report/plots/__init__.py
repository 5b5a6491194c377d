"""Every drawing: maps, patches, tests, names, directions, curves. One palette; no result imports its own figure in a
circle.
"""

from absence_plugins.report.plots.notebook import show_figures

show_figures()
