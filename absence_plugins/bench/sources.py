"""A fingerprint of the code that a kept result depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import absence_plugins

PARTS = ("captum", "zennit", "relevance", "core", "methods", "data", "experiments", "bench")


def fingerprint_sources(*packages: str, parts: Sequence[str] = PARTS) -> str:
    """A fingerprint of this package (of these ``parts``: folders, or folders or files in them), its hosts and other
    packages: tables made by other code are not taken for today's.
    """
    digest = hashlib.sha256(" ".join(version(name) for name in ("torch", "captum", "zennit", *packages)).encode())
    root = Path(absence_plugins.__file__).parent
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root).as_posix()
        if any(inner == part or inner.startswith(f"{part}/") for part in parts):
            digest.update(path.read_bytes())
    return digest.hexdigest()
