"""absence_plugins: see what a network computes from what is *not* in the image.

Adapters for Captum (:mod:`absence_plugins.captum`) and the methods around them. Nothing here imports
anything heavier than torch, and torch only when a name that needs it is used, so that the command line can
check its arguments first; each adapter imports its one host when it is itself imported.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import absence_plugins.core  # noqa: F401  (so that absence_plugins.core is an attribute)

# In a notebook without ipywidgets, tqdm.auto warns when it is first imported, and then shows the bars as text, which is
# right.
warnings.filterwarnings("ignore", message="IProgress not found", module=r"tqdm\.auto")

if TYPE_CHECKING:
    from absence_plugins.core.columns import Column
    from absence_plugins.core.direction import Direction
    from absence_plugins.core.explanation import Explanation
    from absence_plugins.core.feature_space import FeatureSpace
    from absence_plugins.core.kinds import SignalKind, TableKind, TextKind, VolumeKind
    from absence_plugins.core.made_references import MadeReferences
    from absence_plugins.core.references import ReferenceSet
    from absence_plugins.core.table_kinds import table_kind
    from absence_plugins.core.table_space import TableSpace
    from absence_plugins.core.token_space import TokenSpace
    from absence_plugins.core.units import Layer, Unit

__version__ = "0.2.0"
__all__ = [
    "Column",
    "Direction",
    "Explanation",
    "FeatureSpace",
    "Layer",
    "MadeReferences",
    "ReferenceSet",
    "SignalKind",
    "TableKind",
    "TableSpace",
    "TextKind",
    "TokenSpace",
    "Unit",
    "VolumeKind",
    "__version__",
    "table_kind",
]

_MODULES = {
    "Column": "columns",
    "Direction": "direction",
    "Explanation": "explanation",
    "FeatureSpace": "feature_space",
    "Layer": "units",
    "MadeReferences": "made_references",
    "ReferenceSet": "references",
    "SignalKind": "kinds",
    "TableKind": "kinds",
    "TableSpace": "table_space",
    "TextKind": "kinds",
    "TokenSpace": "token_space",
    "Unit": "units",
    "VolumeKind": "kinds",
    "table_kind": "table_kinds",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"absence_plugins.core.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
