"""``absence-plugins bench all``: every bench of costs, one after the other, each kept as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absence_plugins.core.files import require_folder, write_json


@dataclass(frozen=True, repr=False)
class AllResult:
    """What every bench of costs has found.

    Attributes:
        results: by the name of the bench.
        missing: by its name why one could not run: a package that is not installed.
    """

    results: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every ratio that is judged keeps its limit."""
        return all(one.ok for one in self.results.values())

    def table(self) -> str:
        """The tables of all benches, and what is above its limit."""
        parts = [f"== {name}: {'ok' if one.ok else 'NOT KEPT'}\n{one.table()}" for name, one in self.results.items()]
        return "\n\n".join([*parts, *(f"== {name}: not run: {why}" for name, why in self.missing.items())])

    def __repr__(self) -> str:
        return f"AllResult of {len(self.results)} benches\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        results = {name: one.to_dict() for name, one in self.results.items()}
        return {"results": results, "missing": dict(self.missing), "ok": self.ok}


def run_all_benches(
    benches: Mapping[str, Callable[..., Any]],
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
) -> AllResult:
    """Run benches by name; one whose host is not installed is named and left out.

    Args:
        benches: functions with the options below.
        rounds: rounds per measured ratio.
        quick: tiny sizes, nothing judged.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show progress bars on stderr.
        out: a folder for NAME.json of each bench, written when it is done, and for all.json.

    Raises:
        ValueError: fewer than one round, a device that does not exist.

    >>> from absence_plugins.bench import BenchResult
    >>> def measured(**options):
    ...     return BenchResult((), {"rounds": options["rounds"]})
    >>> def without_host(**options):
    ...     raise ImportError("needs Lucent")
    >>> found = run_all_benches({"captum": measured, "lucent": without_host}, rounds=3)
    >>> found.ok, dict(found.missing)
    (True, {'lucent': 'needs Lucent'})
    """
    results, missing = {}, {}
    for name, run in benches.items():
        try:
            results[name] = run(rounds=rounds, quick=quick, device=device, progress=progress)
        except ImportError as error:
            missing[name] = str(error)
            continue
        if out is not None:
            write_costs(name, results[name], out)
    found = AllResult(results, missing)
    if out is not None:
        write_costs("all", found, out)
    return found


def write_costs(name: str, result: Any, folder: Path) -> Path:
    """Write all numbers of a bench to ``folder``/``name``.json.

    >>> import tempfile
    >>> write_costs("all", AllResult({}), Path(tempfile.mkdtemp())).name
    'all.json'
    """
    path = require_folder(folder, make=True) / f"{name}.json"
    write_json(path, result.to_dict())
    return path
