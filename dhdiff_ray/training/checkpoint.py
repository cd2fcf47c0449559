"""Final weights as a diffusers folder in the run: ``models/<category>/`` (DESIGN: contracts on disk).

Decided: ``dhdiff.json`` is written last; a category without it is not trained, whatever else lies there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhdiff_ray.run.damage import DamagedError, first_broken, promise, promises_below, remedy_of
from dhdiff_ray.run.folder import RunFolder, as_json, temporary_folder
from dhdiff_ray.run.foundation import weights_hash
from dhdiff_ray.run.run import Run

if TYPE_CHECKING:  # drivers ask what is trained and need no diffusers for it
    from diffusers.training_utils import EMAModel

    from dhdiff_ray.training.build import Parts

MARKER = "dhdiff.json"
MANIFEST = "manifest-{rank}.json"
"""Size and hash of what one rank wrote of a checkpoint."""
FILES = "files.json"
"""Size and hash of every other file of a model but its card; older ones lack the marker's."""


def is_trained(folder: RunFolder, category: str) -> bool:
    """Whether a finished model of the category lies in the run."""
    return folder.exists(f"models/{category}/{MARKER}")


def model_facts(folder: RunFolder, category: str) -> dict[str, Any]:
    """What was written beside a model: category, defects, steps, weights' hash, config hash.

    Raises:
        ValueError: the category is not trained, or what was written is damaged.
    """
    if not is_trained(folder, category):
        raise ValueError(
            f"{folder.uri} has no trained model of {category!r}; run: dhdiff-ray submit train ... --resume"
        )
    name = f"models/{category}/{MARKER}"
    facts = folder.read_json(name)
    if not isinstance(facts, dict) or not {"category", "defects", "weights_sha256"} <= facts.keys():
        raise DamagedError.of(folder.uri, name, "it does not tell all of its model")
    told = folder.facts(f"models/{category}/{FILES}").get(MARKER)
    if facts["category"] != category or (told and told != promise(folder.read_bytes(name))):
        raise DamagedError.of(folder.uri, name, "another content than was written")
    return facts


def check_model(folder: Path) -> None:
    """Compare the files of a published model on this machine with the hashes written beside them.

    What was published before every file had one is held to the weights' hash alone, and what has none passes.

    Raises:
        DamagedError: the first file that differs, and what to type.
    """
    marker, files = folder / MARKER, folder / FILES
    try:
        facts = json.loads(marker.read_text()) if marker.is_file() else {}
        promises = json.loads(files.read_text()) if files.is_file() else {}
        if not isinstance(facts, dict):
            raise ValueError("it is no JSON object")
        problem = first_broken(folder, promises)
        if not problem and facts and not promises and weights_hash(folder) != facts["weights_sha256"]:
            problem = "its weights are not those that were published"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem, facts = f"{MARKER} or {FILES} cannot be read: {error}", {}
    if problem:
        category = facts.get("category", folder.name)
        raise DamagedError(
            f"the model of {category!r} in {folder} is damaged: {problem}; {remedy_of(f'models/{category}/{MARKER}')}"
        )


def broken_checkpoint(place: Path, may_be_old: bool = True) -> str:
    """What is not as it was written in a checkpoint on this machine; empty for nothing."""
    try:
        ranks = json.loads((place / MARKER).read_text())["world_size"]
        manifests = {rank: place / MANIFEST.format(rank=rank) for rank in range(ranks)}
        if may_be_old and not any(file.is_file() for file in manifests.values()):
            return ""
        told = [json.loads(file.read_text()) for file in manifests.values()]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, LookupError, TypeError) as error:
        return f"what was written of it cannot be read: {error}"
    return next((problem for promises in told if (problem := first_broken(place, promises))), "")


def publish(parts: Parts, average: EMAModel | None, run: Run, category: str, facts: dict[str, Any]) -> None:
    """Write the averaged weights, or the last ones, as ``models/<category>/``, with a model card.

    Over a foundation of ours, of adapters alone where those were trained; whole otherwise.

    Args:
        parts: the trained model; left with the published weights.
        average: averaged weights, or None.
        run: whose configuration goes into the card by its hash.
        category: what it draws.
        facts: defects, licence of the images and other plain values for card and marker.
    """
    from dhdiff_ray.training.adapt import write_adapters

    if average is not None:
        average.copy_to(parts.objective.trained_parameters())
    parts.objective.eval()
    with temporary_folder() as temporary:
        target = temporary / category
        if parts.under is not None:
            write_adapters(parts.pipeline(), parts.under, target)
            facts = {"foundation": parts.under.about, **facts}
        else:
            write_pipeline(parts.pipeline(), target)
        facts = {
            "category": category,
            "weights_sha256": weights_hash(target),
            "config_digest": run.config.digest(),
            "steps": run.config.train.steps,
            "resolution": run.config.data.resolution,
            **facts,
        }
        (target / "README.md").write_text(card(facts, parts.under is not None))
        promises = {name: told for name, told in promises_below(target).items() if not name.endswith(".md")}
        promises[MARKER] = promise(as_json(facts))
        (target / FILES).write_text(json.dumps(promises, indent=2) + "\n")
        run.folder.upload(target, f"models/{category}")
    run.folder.write_json(f"models/{category}/{MARKER}", facts)


def write_pipeline(pipeline: Any, target: Path) -> None:
    """Write a diffusers folder, adapters added to the weights; where its parts were loaded from is left out."""
    from dhdiff_ray.training.adapt import without_adapters

    pipeline.register_modules(unet=without_adapters(pipeline.unet))
    pipeline.save_pretrained(target, safe_serialization=True)
    for file in target.rglob("*.json"):
        content = json.loads(file.read_text())
        if content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2) + "\n")


def card(facts: dict[str, Any], adapted: bool = False) -> str:
    """A model card with its facts; ``adapted`` says that the model is adapters over a foundation."""
    lines = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return CARD.format(category=facts["category"], facts=lines, opened=ADAPTED if adapted else WHOLE)


WHOLE = """Open it with `DHDiffPipeline.from_pretrained(folder)` from `dhdiff_ray.model.pipeline`; plain \
`DiffusionPipeline.from_pretrained` does not know the class."""
ADAPTED = """It is adapters over a foundation, which is named below. Open it with `open_model(folder, config)` from \
`dhdiff_ray.pairs.published`, or write it whole with `dhdiff-ray export --self-contained`."""
CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
tags: [anomaly-synthesis, dh-diff]
---

# Double Helix Diffusion: {category}

Draws defect images together with their pixel masks. {opened}

The images it was trained on keep their own licence, which may forbid commercial use.

{facts}
"""
