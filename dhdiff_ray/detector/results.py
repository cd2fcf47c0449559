"""What the detectors' tests gave, kept by category and kind, and put together in ``detection.json`` (section IV-D).

Decided: each detector's figures are a file of their own with what they depend on, so that a job for one category drops
nobody else's, and a rerun tests only what is not there. Of several trainings of a kind the means stand where one's
figures stood, and all of them under ``by_seed``.

The verdict is one sentence: whether made pairs help a detector that has the real ones. Decided: what a factory can do
is train with real defects and with real ones pasted, so made pairs are judged beside real ones against both. Two means
of pixel AP differ where their gap is larger than their spread: the root of the sum of both variances over the seeds of
the detector; the generator is one and the same. One seed has no spread, so it tells no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.writer import conditions_of, write_card
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

RESULT = "detection.json"
BASELINES = (
    "real",
    "real_synthetic",
    "pasted",
    "real_pasted",
    "real_pasted_synthetic",
    "cutpaste",
    "draem",
    "normal",
)
"""Kinds of detectors beside the one trained on made pairs, in the order they are told."""
WORDS = {
    "real_synthetic": "with the pairs",
    "real": "with real ones alone",
    "real_pasted": "with pasted defects",
    "real_pasted_synthetic": "with both",
}
"""What stands in the sentence, in its order: all of these see the real defects."""
ALONE = {"synthetic": "pairs alone", "pasted": "pasted defects alone"}
"""Stand in it where the sums were not trained."""
MISSING = "Whether the pairs help beside real ones is not measured"


def kinds_of(config: Config) -> tuple[str, ...]:
    """The kinds of detectors that are trained."""
    return ("synthetic", *(kind for kind in BASELINES if kind in config.detect.baselines))


def trainings_of(config: Config) -> list[tuple[str, int]]:
    """Every training of a category: its kind, and the how manieth of that kind; a fit draws nothing, so one will do."""
    return [(kind, at) for kind in kinds_of(config) for at in range(1 if kind == "normal" else config.detect.seeds)]


def keep(folder: RunFolder, category: str, training: tuple[str, int], content: dict[str, Any]) -> None:
    """Write down what one detector's test gave: ``conditions`` and ``figures``."""
    folder.write_json(_name(category, *training), content)


def kept(folder: RunFolder, category: str, training: tuple[str, int]) -> dict[str, Any] | None:
    """What was written down: ``conditions`` and ``figures``; None if nothing was."""
    return folder.facts(_name(category, *training)) or None


def together(figures: Mapping[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """A category's detectors from their trainings, and how much of the real pairs' worth the made ones have."""
    kinds = {kind: _mean([part for (k, _), part in figures.items() if k == kind]) for kind, _ in figures}
    if "real" not in kinds:
        return kinds
    made, real = (kinds[kind]["pixel_ap"] for kind in ("synthetic", "real"))
    return {**kinds, "ratio_pixel_ap": made / real if made is not None and real else None}


def collect(run: Run) -> None:
    """Write ``detection.json`` from the figures of every category all of whose detectors were tested alike."""
    config, folder, split = run.config, run.folder, run.split
    result: dict[str, Any] = {}
    for category in split.categories:
        parts = {training: kept(folder, category, training) for training in trainings_of(config)}
        now = conditions_of(run, category)
        if all(part and part.get("conditions") == now for part in parts.values()):
            result[category] = together({training: part["figures"] for training, part in parts.items() if part})
    result["conditions"] = {
        "split_digest": split.digest,
        "test_holds_training_images": split.test_holds_training_images,
        "config_digest": config.digest(),
        "seed": config.run.seed,
        "resolution": config.data.resolution,
        **config.detect.model_dump(mode="json"),
    }
    folder.write_json(RESULT, result)
    write_card(folder)


def verdicts(detection: Mapping[str, Any]) -> list[str]:
    """A sentence for a run's ``detection.json``, and one for each category where there are several."""
    categories = {name: row for name, row in sorted(detection.items()) if name != "conditions"}
    if not categories:
        return []
    if len(categories) == 1:
        return [f"{name}: {verdict(row)}" for name, row in categories.items()]
    each = [f"{name}: {verdict(row)}" for name, row in categories.items()]
    return [f"{len(categories)} categories: {verdict(_over(list(categories.values())))}", *each]


def verdict(figures: Mapping[str, Any]) -> str:
    """The sentence for one category's detectors.

    Args:
        figures: by kind, as ``results.together`` gives them; kinds that were not trained are not told.
    """
    values = {kind: ap for kind in (*WORDS, *ALONE) if (ap := _values(figures.get(kind)))}
    judged = "real_synthetic" in values and "real" in values
    shown = {kind: words for kind, words in WORDS.items() if kind in values}
    if "real_synthetic" not in values:
        shown |= {kind: words for kind, words in ALONE.items() if kind in values}
    parts = [f"{words} {'pixel AP ' * (not at)}{_told(values[k])}" for at, (k, words) in enumerate(shown.items())]
    seeds = min((len(values[kind]) for kind in shown), default=0)
    spread = f"{seeds} seeds" if seeds > 1 else "one seed: no spread"
    figures_told = f"{', '.join(parts)} ({spread})" if parts else ""
    if not judged:
        need = f"add {' and '.join(k for k in ('real', 'real_synthetic') if k not in values)} to detect.baselines"
        return f"{figures_told[:1].upper()}{figures_told[1:]}{'. ' * bool(parts)}{MISSING}; {need}"
    return f"{_judged(values)}: {figures_told}"


def _mean(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the figures of several trainings, and each one's; one training's are as they are."""
    if len(several) == 1:
        return several[0]
    means: dict[str, Any] = {}
    for name, value in several[0].items():
        values = [one.get(name) for one in several]
        numbers = [v for v in values if isinstance(v, int | float)]
        same = all(v == value for v in values) or len(numbers) < len(values)
        means[name] = value if same else sum(numbers) / len(numbers)
    return {**means, "by_seed": list(several)}


def _name(category: str, kind: str, at: int) -> str:
    return f"detectors/{category}/{kind}.{at}.figures.json" if at else f"detectors/{category}/{kind}.figures.json"


def _judged(values: Mapping[str, list[float]]) -> str:
    """The words before the figures."""
    if min(len(values[kind]) for kind in ("real_synthetic", "real")) < 2:
        return "One training of each tells no difference"
    against = _differs(values["real_synthetic"], values["real"])
    if against == 0:
        return "No difference can be told"
    if against < 0:
        return "The pairs hurt"
    if len(values.get("real_pasted", ())) < 2:
        return "The pairs help"
    pasted = _differs(values["real_synthetic"], values["real_pasted"])
    return {
        1: "The pairs help, more than pasted defects",
        0: "The pairs help, and from pasted defects no difference can be told",
        -1: "The pairs help, less than pasted defects",
    }[pasted]


def _differs(some: list[float], others: list[float]) -> int:
    """1 or -1 where the means differ by more than their spread, else 0."""
    gap = mean(some) - mean(others)
    return 0 if abs(gap) <= (stdev(some) ** 2 + stdev(others) ** 2) ** 0.5 else 1 if gap > 0 else -1


def _values(figures: Mapping[str, Any] | None) -> list[float]:
    """Pixel AP of every training of a kind; none where one has no figure."""
    several = [one.get("pixel_ap") for one in (figures or {}).get("by_seed", [figures] if figures else [])]
    return [] if None in several else several


def _over(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures as of one category: of each seed the mean over categories, of the kinds that all of them have."""
    over = {}
    for kind in (*WORDS, *ALONE):
        values = [_values(row.get(kind)) for row in rows]
        if all(values):
            over[kind] = {"by_seed": [{"pixel_ap": mean(same)} for same in zip(*values, strict=False)]}
    return over


def _told(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"
