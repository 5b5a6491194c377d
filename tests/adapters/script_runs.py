"""The scripts of tests/adapters/scripts: run as they are written, and with their one changed line. `import script_runs`."""

from __future__ import annotations

import random
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.explanation import Explanation

FOLDER = Path(__file__).parent / "scripts"


@dataclass
class Run:
    """What a script left behind: its ``result`` by name, the explanations made on the way, what was warned of."""

    result: dict[str, Any]
    explanations: list[Explanation] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """Everything that was said about what the maps mean."""
        return "\n".join([*self.warned, *(repr(one) for one in self.explanations)])


def scripts(host: str) -> list[str]:
    """The names of a host's scripts."""
    return sorted(path.stem.removeprefix(f"{host}_") for path in FOLDER.glob(f"{host}_*.py"))


def swapped(source: str, pattern: str, replacement: Any) -> str:
    """The source with its import line (one, or one per module of the host) changed, and nothing else."""
    changed = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    assert changed != source, "no import line of the host"
    return changed


def run(name: str, source: str | None = None, spied: Any = None) -> Run:
    """One run of a script; of ``spied`` (a class with ``_collect``) the explanations are kept."""
    path = FOLDER / f"{name}.py"
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    found = Run({})
    namespace: dict[str, Any] = {"__name__": "__main__"}
    original = None if spied is None else spied._collect

    def collect(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = original(self, *args, **kwargs)
        found.explanations.extend(part for part in made if isinstance(part, Explanation))
        return made

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if spied is not None:
            spied._collect = collect
        try:
            exec(compile(source or path.read_text(), str(path), "exec"), namespace)
        finally:
            if spied is not None:
                spied._collect = original
    found.result = namespace["result"]
    found.warned = [str(one.message) for one in seen if issubclass(one.category, AbsenceWarning)]
    return found


def differing(plain: Run, other: Run) -> set[str]:
    """The names of the results that are not the same; all of them must have the same form and be finite."""
    assert list(plain.result) == list(other.result)
    return {name for name, value in plain.result.items() if not _is_same(value, other.result[name])}


def _is_same(one: Any, other: Any) -> bool:
    assert type(one) is type(other)
    if not isinstance(one, (Tensor, np.ndarray)):
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-6))
    assert one.shape == other.shape, (one.shape, other.shape)
    assert one.dtype == other.dtype, (one.dtype, other.dtype)
    own, others = (
        np.asarray(part.detach() if isinstance(part, Tensor) else part, dtype=float) for part in (one, other)
    )
    assert np.isfinite(others).all()
    return bool(np.allclose(own, others, rtol=1e-3, atol=1e-4 * max(np.abs(own).max(), 1e-2)))
