"""``report``: the tables of a run on the terminal, the paper's beside them, and its page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table
from dhdiff_ray.cli.resolve import Typed, resolve, run_folder


def report(
    run: Annotated[str, typer.Option(help="Run whose tables are printed.")],
    storage: options.Storage = None,
    as_json: options.Json = False,
) -> None:
    """Print every table a run has by now, and write its page.

    Example: dhdiff-ray report --run first --storage runs
    """
    from dhdiff_ray.report.page import run_tables, write_report

    output = Output(as_json)
    config = resolve("report", Typed(run=run, storage=storage)).config
    tables = run_tables(run_folder(config))
    page = write_report(config)
    if as_json:
        output.data({"report": page, "tables": [asdict(one) for one in tables]})
        return
    for one in tables:
        output.data(None, table=table(one.title, one.heads, one.rows))
        conditions = ", ".join(f"{name} {value}" for name, value in one.conditions.items())
        output.note("\n".join(words for words in (one.note, conditions) if words))
    if not tables:
        output.note(f"nothing is measured yet; next: dhdiff-ray submit score --run {run}")
    output.data(None, text=page)
