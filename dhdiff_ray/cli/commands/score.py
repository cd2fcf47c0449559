"""``score``: the numbers of any folder of images, here and without a run."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table


class Centres(StrEnum):
    """Which real images of a defect were trained on."""

    third = "third"
    half = "half"
    all = "all"


def score(
    folder: Annotated[Path, typer.Argument(help="Folder of made images.", show_default=False)],
    real: Annotated[
        Path | None, typer.Option(help="Folder of real anomalies: MVTec's tree, or one defect's images.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, for a plain folder of images.")] = None,
    category: options.Categories = None,
    features: Annotated[
        str | None, typer.Option(help="inception, small or standin. [default: inception]", show_default=False)
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Rule of IC-LPIPS: anomalydiffusion, full, cdc, dfmgan, seas.", show_default=False),
    ] = None,
    weights_dir: Annotated[
        str | None, typer.Option(help="Folder of the networks' files; else PyTorch's hub cache.", show_default=False)
    ] = None,
    centres: Annotated[
        Centres, typer.Option(help="First real images by name that were trained on; the rest is held out.")
    ] = Centres.third,
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Resize all images to this square.", show_default=False)
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A scores.json, or what --output wrote, to put beside.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the result to this file.", show_default=False)] = None,
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """Score a folder of images: MVTec's tree, AnomalyDiffusion's or DualAnoDiff's output, or a plain folder.

    Example: dhdiff-ray score generated_dataset --real data/mvtec --weights-dir weights
    """
    from dhdiff_ray.config.load import load_config
    from dhdiff_ray.scoring.folder import score_folder

    out = Output(as_json)
    given = {"features": features, "profile": profile, "weights_dir": weights_dir}
    flags = {
        f"score.{name}": ("--" + name.replace("_", "-"), value) for name, value in given.items() if value is not None
    }
    config = load_config(flags=flags, sets=tuple(sets or ())).config
    other = _other(against) if against else None  # before the work, so that a wrong path costs nothing
    result = score_folder(
        folder.expanduser().resolve(),
        config.score,
        real=real.expanduser().resolve() if real else None,
        masks=masks.expanduser().resolve() if masks else None,
        cut=centres.value,
        side=resolution,
        categories=category or (),
        seed=config.run.seed,
        tell=out.note,
    )
    if other is not None:
        from dhdiff_ray.metrics.compare import compare

        rows, warnings = compare(result["scores"], other)
        result |= {"against": str(against), "compared": rows, "warnings": warnings}
        for warning in warnings:
            out.warn(f"not comparable: {warning}")
    out.note("±: over the seeds of IC-LPIPS; real: the same for held-out real anomalies, the scale")
    for metric, reason in result["left_out"].items():
        out.note(f"left out: {metric}: {reason}")
    for row in result["scores"]:
        if row["level"] == "defect" and row["conditions"].get("copies"):
            found = row["conditions"]
            names = ", ".join(found["copies_named"])
            out.warn(f"{row['category']}/{row['defect']}: {found['copies']} of {row['n']} look like copies: {names}")
    if output:
        output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    out.data(result, table=_table(result))


def _other(path: Path) -> list[dict[str, Any]]:
    try:
        scores = json.loads(path.read_text())["scores"]
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; --against takes a run's scores.json or what --output wrote") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} holds no scores; --against takes a scores.json or what --output wrote") from None
    return scores


def _table(result: dict[str, Any]) -> Any:
    beside = {_key(row): row["other"] for row in result.get("compared", ())}
    heads = ["metric", "of", "value", "±", "real", "N"]
    rows = []
    for row in result["scores"]:
        names = (row["metric"], "/".join(name for name in (row["category"], row["defect"]) if name) or "all")
        std = row["conditions"].get("std") if row["metric"].startswith("ic_lpips") else None
        rows.append([*names, row["value"], std, row["reference"], row["n"]])
        if beside:
            rows[-1].insert(3, beside.get(_key(row)))
    if beside:
        heads.insert(3, "other")
    return table("", heads, rows)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["metric"], row["level"], row["category"], row["defect"]
