"""absence_plugins: see what a network computes from what is *not* in the image.

Adapters for Captum (:mod:`absence_plugins.captum`) and the methods around them. Nothing here imports
anything heavier than torch; each adapter imports its one host when it is itself imported.
"""

from absence_plugins.core.direction import Direction
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.units import Layer, Unit

__version__ = "0.1.0"
__all__ = ["Direction", "Explanation", "Layer", "ReferenceSet", "Unit", "__version__"]
