"""The patches of a data set on which a unit is highest and lowest: what it likes, and what may hold it down."""

from absence_plugins.methods.patches.images import halves
from absence_plugins.methods.patches.result import ExtremePatches, Extremes
from absence_plugins.methods.patches.scan import find_extreme_patches

__all__ = ["ExtremePatches", "Extremes", "find_extreme_patches", "halves"]
