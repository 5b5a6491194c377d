"""How attributors and composites say what they do: their repr, and their table in a notebook."""

from __future__ import annotations

from typing import Any

from absence_plugins.core.results import Shown
from absence_plugins.core.table import Grid
from absence_plugins.core.wording import describe_question, describe_signs


class ShownAttributor(Shown):
    """What is explained, compared with what, by which rules, and what red and blue mean."""

    def __repr__(self) -> str:
        parts = [type(getattr(self, "model", None)).__name__, _name(getattr(self, "composite", None))]
        parts += [f"{name}={getattr(self, name, None)!r}" for name in ("reference", "nontarget")]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _grid(self) -> Grid:
        asked: Any = self
        named = "the output that attr_output names"
        explained = (
            named if asked.nontarget in (None, "target") else f"{describe_question(asked.nontarget)}; target: {named}"
        )
        compared = "zeros, where nothing missing can show" if asked.reference is None else _said(asked.reference)
        red, blue = describe_signs(asked.nontarget)
        rows = [
            ("model", type(asked.model).__name__),
            ("rules", _name(asked.composite)),
            ("explains", explained),
            ("compared with", compared),
            ("red (above 0)", red),
            ("blue (below 0)", blue),
        ]
        return Grid((("setting", "meaning"), *rows), left=(0, 1))


class ShownComposite(Shown):
    """Which rule stands on which modules; all redistribute differences between input and reference."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._rules())} kinds of modules with a rule)"

    def _grid(self) -> Grid:
        foot = "the first line that fits a module counts; red (above 0) raises the explained output, blue holds it down"
        return Grid((("modules", "rule"), *self._rules()), left=(0, 1), foot=(foot,))

    def _rules(self) -> list[tuple[str, str]]:
        first = [(f"first: {_types(types)}", _said(rule)) for types, rule in getattr(self, "first_map", None) or ()]
        return first + [(_types(types), _said(rule)) for types, rule in getattr(self, "layer_map", None) or ()]


def _types(types: Any) -> str:
    if isinstance(types, tuple):
        return ", ".join(map(_types, types))
    return str(getattr(types, "__name__", types))


def _name(composite: Any) -> str:
    return "none: plain gradients" if composite is None else type(composite).__name__


def _said(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a tensor {tuple(shape)}"
    text = repr(value)
    return type(value).__name__ if text.startswith("<") else text
