"""The patch-insertion test: is it the lowest patch that pulls a unit down, or would any patch?"""

from absence_plugins.methods.insertion.result import InsertionResult, UnitInsertion
from absence_plugins.methods.insertion.run import insertion_test

__all__ = ["InsertionResult", "UnitInsertion", "insertion_test"]
