"""How long something takes, in words."""

from __future__ import annotations

LONG = 60.0  # seconds from which on a command says what would shorten it


def describe_time(seconds: float) -> str:
    """In words.

    >>> [describe_time(seconds) for seconds in (0.3, 45.2, 200, 4000, 500_000)]
    ['a second', '45 seconds', '3 minutes', '1.1 hours', '5.8 days']
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} days"
