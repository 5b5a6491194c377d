"""How long something takes, in words."""

from __future__ import annotations

LONG = 60.0  # seconds from which on a command says what would shorten it


def describe_time(seconds: float) -> str:
    """In words.

    >>> describe_time(0.3), describe_time(45.2), describe_time(200), describe_time(4000)
    ('a second', '45 seconds', '3 minutes', '1.1 hours')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"
