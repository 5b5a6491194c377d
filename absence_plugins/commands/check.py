"""What works on a model: see :func:`recommend_method`."""

from __future__ import annotations

from absence_plugins.commands.check_methods import recommend_method

__all__ = ["recommend_method"]
