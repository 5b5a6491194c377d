"""``absence-plugins explain`` of rows of a table, texts, signals and volumes: readers, one walk, and a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from absence_plugins.commands.kinds.options import KindOptions
    from absence_plugins.commands.kinds.walk import ExplainedSamples


def explain_kind(options: KindOptions) -> ExplainedSamples:
    """Explain the samples of files of one kind.

    Raises:
        ValueError: whatever is wrong with the files, the model or the options, in one line.
    """
    if options.kind == "table":
        from absence_plugins.commands.kinds.explain_rows import explain_rows

        return explain_rows(options)
    if options.kind == "text":
        from absence_plugins.commands.kinds.explain_texts import explain_texts

        return explain_texts(options)
    from absence_plugins.commands.kinds.explain_signals import explain_signals

    return explain_signals(options)
