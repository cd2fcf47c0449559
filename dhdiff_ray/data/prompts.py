"""Category and defect to words: the text T of section III.

What we decided: folder names are the words, underscores are spaces, and a normal image is "without defect", so that
the defect is the only thing in which two prompts of a category differ.
"""

from __future__ import annotations

from collections.abc import Iterable

from dhdiff_ray.records import GOOD


def prompt(category: str, defect: str) -> str:
    """``a photo of a metal nut with scratch``; ``... without defect`` for a normal image."""
    words = f"a photo of a {_words(category)}"
    return f"{words} without defect" if defect == GOOD else f"{words} with {defect_words(defect)}"


def defect_words(defect: str) -> str:
    """The words of the prompt that name the defect; their tokens carry the control map S^O (section III-D)."""
    return "defect" if defect == GOOD else _words(defect)


def vocabulary(categories_defects: Iterable[tuple[str, str]]) -> list[str]:
    """All words that the prompts of these (category, defect) pairs use, sorted; normal images are included."""
    pairs = set(categories_defects)
    pairs |= {(category, GOOD) for category, _ in pairs}
    return sorted({word for category, defect in pairs for word in prompt(category, defect).split()})


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())
