"""``data``: list dataset layouts, look at a folder, find what is wrong with it, or draw a small dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import complete, options
from dhdiff_ray.cli.help import group
from dhdiff_ray.cli.output import Output, table

if TYPE_CHECKING:
    from dhdiff_ray.config import Config

app = group("data", "Look at datasets, check them, or make a small one.")


@dataclass(frozen=True)
class Source(options.Knobs):
    """A dataset, and what of it."""

    root: Annotated[str, typer.Option(metavar="FOLDER", help="Folder or URI of the dataset, as downloaded.")]
    dataset: Annotated[str, typer.Option(metavar="NAME", help=options.DATASET, autocompletion=complete.datasets)] = (
        "mvtec"
    )
    category: options.Categories = None
    sets: options.Sets = None

    def here(self) -> Source:
        """The same where it lies on this machine; a remote one is copied."""
        from dhdiff_ray.data.mirror import local_root

        return replace(self, root=str(local_root(self.root)))


@app.command("list")
def list_datasets(as_json: options.Json = False) -> None:
    """List the datasets that can be read, with their terms of use.

    Example: dhdiff-ray data list
    """
    from dhdiff_ray.data.registry import dataset_names, open_dataset

    loaders = [(name, open_dataset(name)) for name in dataset_names()]
    value = [
        {"name": name, "licence": d.licence, "non_commercial": d.non_commercial, "source": d.source}
        for name, d in loaders
    ]
    rows = [(e["name"], e["licence"], "no" if e["non_commercial"] else "", e["source"]) for e in value]
    Output(as_json).data(value, table=table("", ("name", "licence", "commercial use", "source"), rows))


@app.command("scan")
@options.spread
def scan(
    source: Source,
    areas: Annotated[bool, typer.Option(help="Also open the masks and measure their areas.")] = True,
    as_json: options.Json = False,
) -> None:
    """Count images by category and defect, and name what is missing.

    With sizes and mask areas.

    Example: dhdiff-ray data scan --dataset mvtec --root data/mvtec
    """
    from dhdiff_ray.data.registry import configured
    from dhdiff_ray.data.survey import survey

    data = source.here().load("data.skip_bad=true").data
    output, missing = Output(as_json), []
    loader = configured(data, missing.append)
    rows = survey(loader, Path(data.root), data.categories, missing.append, areas=areas)
    value = {"dataset": loader.name, "licence": loader.licence, "rows": rows, "missing": missing}
    percents = (" / ".join(f"{value:.3g}" for value in row.get("mask_percent", ())) for row in rows)
    shown = [(*list(row.values())[:8], percent) for row, percent in zip(rows, percents, strict=True)]
    names = ("category", "defect", "side", "images", "masks", "groups", "size", "mode", "mask area, %")
    output.data(value, table=table("", names, shown))
    for line in missing:
        output.warn(line)


@app.command("verify")
@options.spread
def verify(
    source: Source,
    workers: Annotated[int, typer.Option(min=0, help="Files opened at a time; 0 is one per core.")] = 0,
    address: Annotated[
        str | None,
        typer.Option(help="http://HOST:8265 of a cluster that sees the folder: its cores then open the files."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Open every file and say what would spoil a run.

    Each finding comes with its remedy; leaves with 1 if there is an error.

    Example: dhdiff-ray data verify --dataset mvtec --root data/mvtec
    """
    from dhdiff_ray.data.verify import Finding
    from dhdiff_ray.data.verify import verify as check

    output = Output(as_json)
    findings: list[Finding] = []
    summary: dict[str, Any] = {}
    if address:
        config = source.load()
        for event in _on_cluster(config, address, output):
            if event.pop("event") == "verified":
                summary = event
            else:
                findings.append(Finding(**event))
    else:
        config = source.here().load()
        findings, summary = check(config.data, seed=config.run.seed, workers=workers)
    lines = [f"{f.level} {f.code}: {f.path!r}\n    {f.message}\n    mend: {f.remedy}" for f in findings]
    text = "\n".join(lines) or "nothing found"
    output.data({**summary, "findings": [asdict(f) for f in findings]}, text=text)
    counts = f"{summary['error']} errors, {summary['warning']} warnings"
    output.note(f"{summary['images']} images and {summary['masks']} masks opened: {counts}")
    if summary["error"]:
        raise typer.Exit(1)


@app.command("preview")
@options.spread
def preview(
    source: Source,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("preview.html"),
    each: Annotated[int, typer.Option(min=1, help="Images shown of each defect.")] = 8,
    as_json: options.Json = False,
) -> None:
    """Write a page with a few images of each defect, masks outlined.

    Example: dhdiff-ray data preview --dataset visa --root data/visa --out visa.html
    """
    from dhdiff_ray.data.preview import preview as page
    from dhdiff_ray.data.registry import configured
    from dhdiff_ray.run.folder import RunFolder

    data = source.here().load("data.skip_bad=true").data
    remarks: list[str] = []
    loader = configured(data, remarks.append)
    samples = loader.scan(Path(data.root), data.categories)
    target = out.expanduser().resolve()
    RunFolder(str(target.parent)).write_bytes(target.name, page(loader, data.root, samples, remarks, each).encode())
    Output(as_json).data({"page": str(target), "images": len(samples), "remarks": remarks}, text=str(target))


@app.command("check")
def check_loader(
    dataset: Annotated[str, typer.Argument(help="A .py file with a loader, or a loader's name.", metavar="LOADER")],
    as_json: options.Json = False,
) -> None:
    """Try a loader on the example it carries.

    Does it keep what every loader promises? Leaves with 1 if not.

    Example: dhdiff-ray data check ./mine.py
    """
    import tempfile

    from dhdiff_ray.data.contract import check_loader as check
    from dhdiff_ray.data.registry import open_dataset

    with tempfile.TemporaryDirectory(prefix="dhdiff-") as folder:
        faults = check(open_dataset(dataset), Path(folder))
    rows = [("failed" if fault else "ok", promise.replace("_", " "), fault) for promise, fault in faults.items()]
    Output(as_json).data(faults, table=table("", ("", "promise", "what is wrong"), rows))
    if any(faults.values()):
        raise typer.Exit(1)


@app.command("make")
def make(
    root: Annotated[Path, typer.Option(help="Folder to write to.")],
    resolution: Annotated[int, typer.Option(min=16, help="Side of the images in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    category: Annotated[
        list[str] | None, typer.Option(help="A product to draw, or all; may be repeated. [default: capsule, mesh]")
    ] = None,
    per_defect: Annotated[int, typer.Option(min=2, help="Images of each defect.")] = 80,
    as_json: options.Json = False,
) -> None:
    """Draw a small dataset with exact masks, in MVTec's layout.

    Read it with --dataset procedural --root data/drawn.

    Example: dhdiff-ray data make --root data/drawn
    """
    from dhdiff_ray.data.datasets.procedural import generate
    from dhdiff_ray.data.products import DEFECTS

    folder = root.expanduser().resolve()
    chosen = sorted(DEFECTS) if category == ["all"] else category
    generate(folder, resolution=resolution, seed=seed, categories=chosen, defects_per_type=per_defect)
    Output(as_json).data({"root": str(folder), "resolution": resolution, "seed": seed}, text=str(folder))


def _on_cluster(config: Config, address: str, output: Output) -> list[dict[str, Any]]:
    """The findings of a job that opens every file: events ``finding``, and ``verified`` at the end."""
    from dhdiff_ray.cli.follow import attend
    from dhdiff_ray.on_ray.cluster.jobs import Jobs

    jobs, events = Jobs(address), []
    info = attend(jobs, jobs.submit("verify", config), output, on_event=events.append)
    findings = [event for event in events if event.get("event") in ("finding", "verified")]
    if info.exit_code or not findings:
        reason = (info.message.splitlines() or ["it told nothing"])[0][:300]
        output.fail(f"job {info.id}: {reason}", info.exit_code or 3)
        raise typer.Exit(info.exit_code or 3)
    return findings
