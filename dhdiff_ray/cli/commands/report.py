"""``report``: the tables of a run on the terminal, the paper's beside them, and its page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dhdiff_ray.cli import complete, options
from dhdiff_ray.cli.output import Output, table
from dhdiff_ray.cli.resolve import resolve

if TYPE_CHECKING:
    from dhdiff_ray.config import Config


def report(
    run: Annotated[
        str, typer.Option(metavar="NAME", help="The run: one folder in the storage.", autocompletion=complete.runs)
    ],
    storage: options.Storage = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's page and print its tables.

    The paper's stand beside them. It needs no cluster; what was not run yet is named with the command that runs it.

    Example: dhdiff-ray report --run first --storage runs
    """
    show_report(resolve("report", options.Typed(run=run, storage=storage)).config, Output(as_json))


def show_report(config: Config, output: Output) -> None:
    """Write the page of a run, and print every table that it has by now."""
    from dhdiff_ray.report.page import run_tables, run_verdicts, write_report
    from dhdiff_ray.run.run import Run

    folder = Run(config).folder
    tables, lines = run_tables(folder), run_verdicts(folder)
    page = write_report(config)
    if output.as_json:
        output.data({"report": page, "tables": [asdict(one) for one in tables], "verdict": lines})
        return
    for one in tables:
        output.data(None, table=table(one.title, one.heads, one.rows))
        conditions = ", ".join(f"{name} {value}" for name, value in one.conditions.items())
        output.note("\n".join(words for words in (one.note, conditions) if words))
    if not tables:
        output.note(f"nothing is measured yet; next: dhdiff-ray submit score --run {config.run.name}")
    for line in lines:
        output.note(line)
    output.data(None, text=page)
