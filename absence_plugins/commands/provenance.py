"""Where a result comes from: versions, seed and command, for the foot of every page."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "captum", "zennit", "torch-lucent", "torchvision", "scikit-learn")


def provenance(*, seed: int, command: str) -> dict[str, str]:
    """Versions of everything that takes part, and how to make the page again.

    >>> provenance(seed=3, command="absence-plugins demo")["seed"]
    '3'
    """
    found = {"absence-plugins": _version("absence-plugins")} | {name: _version(name) for name in PACKAGES}
    return {"command": command, "seed": str(seed), "python": platform.python_version()} | {
        n: v for n, v in found.items() if v
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
