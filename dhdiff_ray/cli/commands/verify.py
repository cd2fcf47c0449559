"""``verify``: is every file of a run as it was written; without a cluster, and pairs are mended on request."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table

if TYPE_CHECKING:
    from dhdiff_ray.report.health import Fault
    from dhdiff_ray.run.run import Run


def verify(
    run: Annotated[str, typer.Option(metavar="NAME", help="The run: one folder in the storage.")],
    storage: options.Storage = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make damaged and missing pairs again, here.")] = False,
    as_json: options.Json = False,
) -> None:
    """Compare every file of a run with the hash beside it.

    Models, checkpoints, pairs, rows, scores; no cluster is needed. Leaves with 1 while one is damaged. A dataset's
    own images are looked at by: dhdiff-ray data verify.

    Example: dhdiff-ray verify --run first --repair
    """
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.report.health import faults_of
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run

    output, folder = Output(as_json), RunFolder.of(storage or "runs", run)
    if not folder.exists():
        raise ConfigError(f"there is no run {folder.uri}; pass --run NAME and --storage FOLDER")
    faults = faults_of(folder)
    if repair and faults:
        _repair(Run.stored(folder), faults, output)
        faults = faults_of(folder)
    rows = [(fault.path, fault.problem, fault.remedy) for fault in faults]
    sound = f"{folder.uri}: every file is as it was written"
    if faults:
        output.data([asdict(fault) for fault in faults], table=table("", ("file", "problem", "what to do"), rows))
        raise typer.Exit(1)
    output.data([], text=sound)


def _repair(run: Run, faults: list[Fault], output: Output) -> None:
    """Make the pairs of every category with a fault whole, in this process."""
    from dhdiff_ray.on_ray.verbs.synthesize import Maker
    from dhdiff_ray.pairs.lots import lot_of
    from dhdiff_ray.pairs.writer import write_card
    from dhdiff_ray.report.health import repairable
    from dhdiff_ray.run.lease import lease

    with lease(run.folder):
        for category in sorted({fault.category for fault in faults} - {""}):
            try:
                asked, digest = repairable(run, category)
                lot, maker = lot_of(asked, category, read=True), Maker(asked)
                for unit in lot.units:
                    maker(unit)
                lot.finish(asked, digest)
                output.note(f"{category}: {sum(len(unit.missing) for unit in lot.units)} pairs made again")
            except ValueError as error:
                output.warn(f"{category}: {error}")
        write_card(run.folder)
