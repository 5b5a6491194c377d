"""Regions of an image, and columns, tokens, spans and regions of other kinds of data: take those that a map names,
change them, and read the output. Images are cut into superpixels.

The sign everywhere: R > 0 raises the explained output, R < 0 suppresses it.
"""

from absence_plugins.methods.regions.measure import measure_regions
from absence_plugins.methods.regions.places import place_elsewhere
from absence_plugins.methods.regions.result import RegionTest, RegionTests
from absence_plugins.methods.regions.segments import segment
from absence_plugins.methods.regions.strongest import strongest_regions
from absence_plugins.methods.regions.strongest_things import strongest_things
from absence_plugins.methods.regions.thing_tests import ThingTest, ThingTests
from absence_plugins.methods.regions.things import measure_things

__all__ = [
    "RegionTest",
    "RegionTests",
    "ThingTest",
    "ThingTests",
    "measure_regions",
    "measure_things",
    "place_elsewhere",
    "segment",
    "strongest_regions",
    "strongest_things",
]
