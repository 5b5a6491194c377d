"""The report of a unit: one module per section, :func:`explain_unit` around them, many units on pages with an index."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absence_plugins.report.unit.explain import explain_unit, report_of, study_of
    from absence_plugins.report.unit.result import UnitReport
    from absence_plugins.report.unit.study import Settings, Study

__all__ = ["Settings", "Study", "UnitReport", "explain_unit", "report_of", "study_of"]

_MODULES = {
    "Settings": "study",
    "Study": "study",
    "UnitReport": "result",
    "explain_unit": "explain",
    "report_of": "explain",
    "study_of": "explain",
}


def __getattr__(name: str) -> Any:  # its sections need all methods; a module beside them does not
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
