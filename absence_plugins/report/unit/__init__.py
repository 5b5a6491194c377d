"""The report of a unit: one module per section, :func:`explain_unit` around them, many units on pages with an index."""

from absence_plugins.report.unit.explain import explain_unit, report_of, study_of
from absence_plugins.report.unit.result import UnitReport
from absence_plugins.report.unit.study import Settings, Study

__all__ = ["Settings", "Study", "UnitReport", "explain_unit", "report_of", "study_of"]
