"""Two processes share two cores: one thread of torch in each."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked ``needs("timm")`` is skipped where the package is missing: the README installs no dev extra."""
    for item in items:
        for mark in item.iter_markers("needs"):
            for name in mark.args:
                if importlib.util.find_spec(name) is None:
                    item.add_marker(pytest.mark.skip(f"{name} is not installed"))
