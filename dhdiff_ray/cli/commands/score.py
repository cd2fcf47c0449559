"""``score``: score any folder of images in this process; ``submit score`` scores the pairs of a run on a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.options import option
from dhdiff_ray.cli.output import Output, table

if TYPE_CHECKING:
    from rich.table import Table

REAL, RULES = "Compared with", "How it is measured"


@dataclass(frozen=True)
class Rules(options.Knobs):
    """How it is measured."""

    features: Annotated[
        str | None, option(RULES, "inception, small or standin. [default: inception]", metavar="NAME")
    ] = None
    profile: Annotated[
        str | None, option(RULES, "Of IC-LPIPS: anomalydiffusion, full, cdc, dfmgan, seas.", metavar="NAME")
    ] = None
    weights_dir: Annotated[
        str | None, option(RULES, "Where the networks' files are; else PyTorch's hub cache.", metavar="FOLDER")
    ] = None
    sets: options.Sets = None


@options.spread
def score(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of made images.", show_default=False)],
    rules: Rules,
    real: Annotated[
        Path | None, option(REAL, "Real anomalies: MVTec's tree, or one defect's images.", metavar="FOLDER")
    ] = None,
    masks: Annotated[Path | None, option(RULES, "Masks, for a plain folder of images.", metavar="FOLDER")] = None,
    category: options.Categories = None,
    centres: Annotated[
        Literal["third", "half", "all"],
        option(REAL, "First real images by name that were trained on; the rest is held out.", show_default=True),
    ] = "third",
    resolution: Annotated[
        int | None, option(RULES, "Resize all images to this square.", min=8, metavar="PIXELS")
    ] = None,
    against: Annotated[
        Path | None, option(REAL, "A scores.json, or what --output wrote, to put beside.", metavar="FILE")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the result to this file.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Score any folder of images on this machine.

    It may come from other tools: MVTec's tree, AnomalyDiffusion's or DualAnoDiff's output, or a plain folder. The pairs
    of a run are scored by dhdiff-ray submit score --run NAME, on a cluster and with the same code.

    Example: dhdiff-ray score generated --real data/mvtec --weights-dir weights
    """
    from dhdiff_ray.metrics.compare import compare
    from dhdiff_ray.scoring.folder import score_folder

    out, config = Output(as_json), rules.load()
    other = _other(against) if against else None  # before the work, so that a wrong path costs nothing
    result = score_folder(
        folder.expanduser().resolve(),
        config.score,
        real=real.expanduser().resolve() if real else None,
        masks=masks.expanduser().resolve() if masks else None,
        cut=centres,
        side=resolution,
        categories=category or (),
        seed=config.run.seed,
        tell=out.note,
    )
    if other is not None:
        rows, warnings = compare(result["scores"], other)
        result |= {"against": str(against), "compared": rows, "warnings": warnings}
        for warning in warnings:
            out.warn(f"not comparable: {warning}")
    _remarks(result, out)
    if output:
        output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    out.data(result, table=_table(result))


def _remarks(result: dict[str, Any], out: Output) -> None:
    out.note("±: over the seeds of IC-LPIPS; real: the same for held-out real anomalies, the scale")
    for metric, reason in result["left_out"].items():
        out.note(f"left out: {metric}: {reason}")
    for row in result["scores"]:
        conditions = row["conditions"]
        if row["level"] == "defect" and conditions.get("copies_named"):
            names, copies = ", ".join(conditions["copies_named"]), conditions["copies"]
            out.warn(f"{row['category']}/{row['defect']}: {copies} of {row['n']} look like copies: {names}")


def _other(path: Path) -> list[dict[str, Any]]:
    try:
        scores = json.loads(path.read_text())["scores"]
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; --against takes a run's scores.json or what --output wrote") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} holds no scores; --against takes a scores.json or what --output wrote") from None
    return scores


def _table(result: dict[str, Any]) -> Table:
    from dhdiff_ray.metrics.compare import key

    beside = {key(row): row["other"] for row in result.get("compared", ())}
    heads = ["metric", "of", "value", "±", "real", "N"]
    rows = []
    for row in result["scores"]:
        names = (row["metric"], "/".join(name for name in (row["category"], row["defect"]) if name) or "all")
        std = row["conditions"].get("std") if row["metric"].startswith("ic_lpips") else None
        rows.append([*names, row["value"], std, row["reference"], row["n"]])
        if beside:
            rows[-1].insert(3, beside.get(key(row)))
    if beside:
        heads.insert(3, "other")
    return table("", heads, rows)
