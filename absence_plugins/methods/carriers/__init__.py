"""Which units carry a decision, those included that are silent on x and active on the reference.

The sign everywhere: R > 0 raises the explained output on x compared with the reference, R < 0 holds it down.
"""

from absence_plugins.methods.carriers.conditional import ConditionalMaps, conditional_maps
from absence_plugins.methods.carriers.examples import UnitExamples, relevant_examples
from absence_plugins.methods.carriers.features import Features
from absence_plugins.methods.carriers.find import find_carriers
from absence_plugins.methods.carriers.flow import CarrierGraph, carrier_graph
from absence_plugins.methods.carriers.result import Carrier, Carriers, LayerCarriers

__all__ = [
    "Carrier",
    "CarrierGraph",
    "Carriers",
    "ConditionalMaps",
    "Features",
    "LayerCarriers",
    "UnitExamples",
    "carrier_graph",
    "conditional_maps",
    "find_carriers",
    "relevant_examples",
]
