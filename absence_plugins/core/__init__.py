"""The words every adapter shares: units, targets, references, signed maps, hooks. Needs torch only."""


class AbsenceWarning(UserWarning):
    """What was computed is right, but may not show what was asked for; the text says why."""
