"""The colors of a sign, everywhere: red above zero, blue below, zero is white."""

from __future__ import annotations

# From zero to the limit. The first steps away from white are large, so that thin strokes show.
REDS = ("#ffffff", "#fbbfae", "#f27a66", "#d93636", "#98101f")
BLUES = ("#ffffff", "#a6cbf2", "#66a3e2", "#2a6fc6", "#0a3b86")


def blend_sign(share: float, *, steps: int = 5) -> str:
    """The color of a share in [-1, 1] of the largest value, as #rrggbb; ``steps``: how far into the dark.

    >>> blend_sign(0.0), blend_sign(1.0), blend_sign(-1.0, steps=3)
    ('#ffffff', '#98101f', '#66a3e2')
    """
    scale = (REDS if share >= 0 else BLUES)[:steps]
    place = min(abs(share), 1.0) * (len(scale) - 1)
    low = min(int(place), len(scale) - 2)
    first, second = (bytes.fromhex(color[1:]) for color in scale[low : low + 2])
    mixed = [round(a + (b - a) * (place - low)) for a, b in zip(first, second, strict=True)]
    return "#" + bytes(mixed).hex()
