"""Regions of an image: cut it into superpixels, take those that a map names, change them, and read the output.

The sign everywhere: R > 0 raises the explained output, R < 0 suppresses it.
"""

from absence_plugins.methods.regions.measure import measure_regions
from absence_plugins.methods.regions.places import place_elsewhere
from absence_plugins.methods.regions.result import RegionTest, RegionTests
from absence_plugins.methods.regions.segments import segment
from absence_plugins.methods.regions.strongest import strongest_regions

__all__ = ["RegionTest", "RegionTests", "measure_regions", "place_elsewhere", "segment", "strongest_regions"]
