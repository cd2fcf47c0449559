"""The card of a tree of pairs: what it holds, what it was made from, under which terms, and how it scored.

Hugging Face reads the head and shows the rest. What we decided: terms that forbid commercial use stand first, since
pairs hold parts of the real images; stand-in scores keep their name; what is not known is left out, never guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LICENCES = {"CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0", "CC BY 4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}
"""Names that Hugging Face gives to licences of our loaders."""
Counts = Mapping[str, Any]
"""What the card tells of a category: pairs by ``defects``, hashes of ``weights``, number of ``seeds``."""
MODEL_LICENCE = "the models of this run, and those they were built from, keep their own terms"


def counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A category's entry in the card, from the rows of its pairs."""
    return {
        "defects": dict(sorted(Counter(row["defect"] for row in rows).items())),
        "weights": sorted({str(row.get("weights_sha256", "unknown")) for row in rows}),
        "seeds": len({row["seed"] for row in rows}),
    }


def card_text(
    counts: Mapping[str, Counts],
    *,
    config: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    detection: Mapping[str, Any] | None = None,
    archived: bool = False,
) -> str:
    """The card as Markdown with a YAML head.

    Args:
        counts: of every finished category, see :func:`counted`.
        config: the run's ``config.json``, if it is there.
        settings: what the pairs of each category were sampled with, where that is known.
        about: the dataset's name, licence and source, as the split keeps them.
        scores: the run's ``scores.json``, if it is there.
        detection: the run's ``detection.json``, if it is there.
        archived: pairs lie in archives, not in files of their own.
    """
    about, config = about or {}, config or {}
    parts = [
        _head(about, archived),
        _INTRODUCTION + ("\n" if archived else f"{_REAL}\n"),
        _terms(about),
        _counts(counts),
        (_IN_ARCHIVES if archived else _IN_FILES) + _ROWS,
        _origin(counts, config, settings or {}),
    ]
    return "\n".join(part for part in (*parts, _scored(scores or {}), _detected(detection or {})) if part)


def _head(about: Mapping[str, Any], archived: bool) -> str:
    licence = str(about.get("licence", ""))
    name = LICENCES.get(licence)
    named = [f"license: {name}"] if name else ["license: other", f"license_name: {json.dumps(licence or 'unknown')}"]
    return "\n".join(["---", *named, *_HEAD, _ARCHIVES if archived else _FILES, "---"])


def _terms(about: Mapping[str, Any]) -> str:
    licence = about.get("licence")
    if not licence:
        return "## Terms\n\nThe licence of the real images is not known here; ask whoever holds them.\n"
    source = f" from {about['source']}" if about.get("source") else ""
    forbids = (
        " **It forbids commercial use**, and pairs hold parts of those images." if about.get("non_commercial") else ""
    )
    return (
        f"## Terms\n\nThe real images are `{_cell(about.get('dataset', ''))}`{source}, under {licence}.{forbids} "
        f"Of the rest, {MODEL_LICENCE}.\n"
    )


def _counts(counts: Mapping[str, Counts]) -> str:
    lines = []
    for category, told in sorted(counts.items()):
        lines += [f"| {_cell(category)} | {_cell(name)} | {n} |" for name, n in sorted(told["defects"].items())]
    return _table("category | defect | pairs", lines)


def sampling_told(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """How the pairs were sampled, one sentence for each group of categories sampled alike."""
    alike: dict[str, list[str]] = {}
    for category in sorted(settings):
        made = settings[category]
        faded = ", faded beside the masks" if made.get("fade") and made.get("background") != "free" else ""
        start, strength = made.get("start"), made.get("strength")
        if start == "reference":
            far = " to ".join(str(bound) for bound in (strength if isinstance(strength, list) else [strength]))
            start = f"the reference's defect, {made.get('placement')} placement, noised to {far}"
        sentence = (
            f"{made.get('steps')} steps, guidance {made.get('guidance')}, start {start}, "
            f"background {made.get('background')}{faded}."
        )
        alike.setdefault(sentence, []).append(category)
    if len(alike) == 1:
        return f"Sampling: {next(iter(alike))}"
    return " ".join(f"Sampling of {', '.join(same)}: {sentence}" for sentence, same in alike.items())


def _origin(
    counts: Mapping[str, Counts],
    config: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    lines = []
    for category, told in sorted(counts.items()):
        hashes = sorted({digest[:16] for digest in told["weights"]})
        lines.append(f"| {_cell(category)} | {', '.join(hashes)} | {told['seeds']} |")
    parts = []
    if config:
        run = config.get("run", {})
        parts.append(f"Run seed {run.get('seed')}; each pair's own seed follows from it, category, defect and index.")
    if settings:
        parts.append(sampling_told(settings))
    table = _table("category | model, SHA-256 of its weights | different seeds", lines)
    return "\n\n".join(part for part in ("## Made by", " ".join(parts), table) if part)


def _scored(scores: Mapping[str, Any]) -> str:
    rows = [s for s in scores.get("scores", []) if s.get("level") == "category"]
    lines = [f"| {_cell(s.get('category'))} | {s['metric']} | {_number(s['value'])} | {s['n']} |" for s in rows]
    for category, figures in sorted(scores.get("pair_alignment", {}).items()):
        shown = ("iou", "ap", "nonempty")
        lines += [
            f"| {_cell(category)} | pair alignment, {k} | {_number(figures.get(k))} | {figures.get('n', '')} |"
            for k in shown
        ]
    return f"## Scores\n\n{_table('category | metric | value | images', lines)}" if lines else ""


def _detected(detection: Mapping[str, Any]) -> str:
    lines = []
    for category, figures in sorted(detection.items()):
        for kind in ("synthetic", "real") if category != "conditions" else ():
            if isinstance(figures.get(kind), Mapping):
                ap, auroc = (_number(figures[kind].get(name)) for name in ("pixel_ap", "image_auroc"))
                lines.append(f"| {_cell(category)} | {kind} | {ap} | {auroc} |")
    if not lines:
        return ""
    flattered = detection.get("conditions", {}).get("test_holds_training_images")
    warning = "**The test side holds training images; these figures flatter.**\n\n" if flattered else ""
    return f"## Detector\n\n{warning}{_table('category | trained on | pixel AP | image AUROC', lines)}"


def _table(columns: str, lines: Iterable[str]) -> str:
    names = columns.split(" | ")
    return "\n".join([f"| {columns} |", "|" + " --- |" * len(names), *lines, ""])


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)


_HEAD = """task_categories: [image-segmentation]
tags: [anomaly-detection, synthetic]
configs:
- config_name: pairs
  default: true
  data_files:
  - split: train""".splitlines()
_FILES = '    path: ["*/metadata.jsonl", "*/test/**/*.png", "*/ground_truth/**/*.png"]'
_ARCHIVES = '    path: "*/*/*.tar"'

_INTRODUCTION = """# Made pairs: defect images with their masks

Drawn by a Double Helix Diffusion model; no photograph shows these defects."""
_REAL = """ Images in `train/good` and `test/good` are
real, resized, and under the licence of the dataset they come from."""

_IN_FILES = """\
Each row of `<category>/metadata.jsonl` names an image, its mask, and what the pair was made from: `prompt`,
"""
_IN_ARCHIVES = """\
Each `<category>/<defect>/NNNNNN.tar` holds pairs as WebDataset names them: `image.png`, `mask.png`, `json`. The Parquet
file beside it has their rows, with `files`: where both lie in the tar. A row tells what the pair was made from
(`config_digest` stands in `<category>/archives.json`): `prompt`,
"""
_ROWS = """\
`seed`, `base` (the normal image), `reference` (the real anomaly), `control` (`raw_mask`: the reference's cells were the
control map), `attempt` (0: the first try; a pair of no use is drawn again), `empty` (where no try gave a mask),
`weights_sha256` (the model), `foundation_sha256` (the model it was adapted from, if one), `config_digest` and
`split_digest`.
"""
