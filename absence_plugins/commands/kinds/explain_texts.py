"""``absence-plugins explain TEXTS.txt --text``: texts against the nearest texts of another class."""

from __future__ import annotations

import warnings
from dataclasses import replace

from absence_plugins.commands.kinds.asked import Asked
from absence_plugins.commands.kinds.models import KindModel, load_kind_model
from absence_plugins.commands.kinds.options import KindOptions
from absence_plugins.commands.kinds.pool import make_pool
from absence_plugins.commands.kinds.read_texts import Texts, read_texts
from absence_plugins.commands.kinds.text_samples import TextSamples, find_points, find_words, read_text_outputs
from absence_plugins.commands.kinds.walk import ExplainedSamples, explain_samples
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import spell_name
from absence_plugins.methods.texts.explain import read_text
from absence_plugins.methods.texts.words import Encoder, read_tokenizer

K = 1  # references per text
TITLE = "What a text says, and what it lacks"


def explain_texts(options: KindOptions) -> ExplainedSamples:
    """Explain texts.

    Raises:
        ValueError: a file without texts, no tokenizer, texts that are too long, classes that do not exist.
        ImportError: transformers is missing.
    """
    is_own = options.references is None
    texts = read_texts(options.file, options.label if is_own else None)
    compared = texts if options.references is None else read_texts(options.references, options.label)
    loaded = load_kind_model(options.model, options.weights, "text", options.classes)
    encoder = read_tokenizer(loaded.tokenizer)
    chosen, said = options.choose(range(len(texts)), "text")
    compared = take_readable(loaded, encoder, compared)
    outputs = read_text_outputs(loaded, encoder, compared.texts)
    shown = spell_name(compared.path)
    names = [f"line {line} of {shown}" for line in compared.lines]
    pool = make_pool(loaded, outputs, names, compared.labels, f"{len(compared)} texts of {shown}", is_own=is_own)
    if is_own:
        own = f"No --references: each text is compared with the other texts of {shown}."
        pool = replace(pool, notes=(own, *pool.notes))
    asked = Asked.read(loaded, outputs.shape[1], options, K)
    samples = TextSamples(
        loaded,
        encoder,
        tuple(texts.texts[place] for place in chosen),
        tuple(f"Text {place}" for place in chosen),
        pool,
        compared.texts,
        find_points(loaded, encoder, compared.texts),
        asked,
        find_words(encoder, compared.texts),
    )
    notes = _warn_notes(texts, compared)
    return explain_samples(samples, options, title=TITLE, notes=[*loaded.notes, *notes, *pool.notes, *said])


def take_readable(loaded: KindModel, encoder: Encoder, texts: Texts) -> Texts:
    """The references without those that the model cannot take; how many these are is a note.

    Raises:
        ValueError: none is left, with the first reason.
    """
    kept, reasons = [], []
    for place, text in enumerate(texts.texts):
        try:
            read_text(loaded.model, encoder, text, f"line {texts.lines[place]} of {spell_name(texts.path)}")
            kept.append(place)
        except ValueError as error:
            reasons.append(str(error))
    if not kept:
        raise ValueError(reasons[0])
    if not reasons:
        return texts
    many = len(reasons) > 1
    said = (
        f"{len(reasons)} text{'s were' if many else ' was'} left out as {'references' if many else 'a reference'}: "
        f"{reasons[0]}"
    )
    return texts.take(kept, said)


def _warn_notes(*files: Texts) -> list[str]:
    notes = list(dict.fromkeys(note for one in files for note in one.notes))
    for note in notes:
        warnings.warn(note, AbsenceWarning, stacklevel=3)
    return [f"{note}." for note in notes]
