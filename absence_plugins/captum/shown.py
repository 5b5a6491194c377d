"""How an adapter says what it is asked: its repr, and its table in a notebook."""

from __future__ import annotations

from typing import Any, ClassVar

from absence_plugins.captum.traits import Traits
from absence_plugins.core.results import Shown
from absence_plugins.core.table import Grid
from absence_plugins.core.wording import describe_question, describe_signs

RETURNED = {
    "signed": "a signed map",
    "absence": "evidence for what is missing, a magnitude >= 0",
    "presence": "evidence for what is there, a magnitude >= 0",
}


class ShownMethod(Shown):
    """What is explained, compared with what, and what red and blue mean."""

    _traits: ClassVar[Traits]
    nontarget: Any
    reference: Any
    evidence: str
    _layers: list[Any]

    def __repr__(self) -> str:
        if not hasattr(self, "evidence"):  # while it is made
            return f"{type(self).__name__}(...)"
        options = {"nontarget": self.nontarget, "reference": self.reference, "evidence": self.evidence}
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{type(self).__name__}({type(getattr(self, 'forward_func', None)).__name__}, {said})"

    def _grid(self) -> Grid:
        layers = [repr(layer) for layer in getattr(self, "_layers", ())]
        if not layers and hasattr(self, "layer"):
            given = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
            layers = [type(layer).__name__ for layer in given]
        neuron = not hasattr(self, "_has") or not self._has("target")
        explained = "the chosen neuron" if neuron else describe_question(self.nontarget)
        baselines = self._traits.baselines
        blank = f"the call's {baselines}; without them what Captum takes (zeros)"
        takes = not hasattr(self, "_has") or self._has(baselines) or self._traits.exact
        red, blue = describe_signs(None if neuron else self.nontarget)
        rows = [
            ("model", type(getattr(self, "forward_func", None)).__name__),
            *[("layer", ", ".join(layers))] * bool(layers),
            ("explains", explained),
            ("compared with", repr(self.reference) if self.reference is not None else blank if takes else "nothing"),
            ("returns", RETURNED[self.evidence]),
            ("red (above 0)", red if self.evidence == "signed" else "the evidence"),
            *[("blue (below 0)", blue)] * (self.evidence == "signed"),
        ]
        return Grid((("setting", "meaning"), *rows), left=(0, 1))
