"""Texts: what every token does to an output, and what tokens that only a reference text has do by being missing.

The sign everywhere: R > 0 raises the explained output of the text compared with the reference, R < 0 lowers it.
"""

from absence_plugins.methods.texts.align import align_tokens
from absence_plugins.methods.texts.explain import explain_text
from absence_plugins.methods.texts.references import explain_nearest, text_references
from absence_plugins.methods.texts.result import TextComparison, TextExplanation
from absence_plugins.methods.texts.words import text_kind

__all__ = [
    "TextComparison",
    "TextExplanation",
    "align_tokens",
    "explain_nearest",
    "explain_text",
    "text_kind",
    "text_references",
]
