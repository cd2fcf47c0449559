"""The command tree, and the one place where an error becomes a line and an exit code.

Not in the paper. Decided: 0 ok, 1 failed here, 2 usage or configuration, 3 job failed, 4 job stopped, 5 cluster
unreachable or unauthorised, 130 interrupted. Commands import what they need when they run, so that help is instant.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dhdiff_ray import __version__
from dhdiff_ray.cli.commands import (
    cluster,
    config,
    data,
    demo,
    doctor,
    explain,
    export,
    jobs,
    report,
    sample,
    score,
    serve,
    submit,
    verify,
)
from dhdiff_ray.cli.help import Group, group
from dhdiff_ray.cli.output import Output

BEGIN, RUNS, RESULTS, ENDPOINT = "Begin", "Train and make pairs", "Look at results", "Make pairs on demand"


class Commands(Group):
    """The tree's first level."""

    sections = (BEGIN, RUNS, RESULTS, ENDPOINT)
    tour = (
        "dhdiff-ray demo",
        "dhdiff-ray data scan --dataset mvtec --root data/mvtec",
        "dhdiff-ray submit all --root data/mvtec --preset tiny --run first",
        "dhdiff-ray report --run first",
        "dhdiff-ray serve up --run first",
    )


app = group(
    "dhdiff-ray",
    "Draw new defect images together with their pixel masks, from a few real ones.",
    cls=Commands,
)
app.command("demo", rich_help_panel=BEGIN)(demo.demo)
app.command("doctor", rich_help_panel=BEGIN)(doctor.doctor)
app.add_typer(data.app, name="data", rich_help_panel=BEGIN)
app.add_typer(config.app, name="config", rich_help_panel=BEGIN)
app.add_typer(submit.app, name="submit", rich_help_panel=RUNS)
app.add_typer(jobs.app, name="jobs", rich_help_panel=RUNS)
app.command("verify", no_args_is_help=True, rich_help_panel=RUNS)(verify.verify)
app.add_typer(cluster.app, name="cluster", rich_help_panel=RUNS)
app.command("report", no_args_is_help=True, rich_help_panel=RESULTS)(report.report)
app.command("score", no_args_is_help=True, rich_help_panel=RESULTS)(score.score)
app.command("explain", rich_help_panel=RESULTS)(explain.explain)
app.command("export", no_args_is_help=True, rich_help_panel=RESULTS)(export.export)
app.add_typer(serve.app, name="serve", rich_help_panel=ENDPOINT)
app.command("sample", no_args_is_help=True, rich_help_panel=ENDPOINT)(sample.sample)


def _version(wanted: bool) -> None:
    if wanted:
        Output("--json" in sys.argv).data({"version": __version__}, text=__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: one JSON document.", is_eager=True)] = False,
) -> None:
    """Run before any command; nothing to prepare."""


def main() -> None:
    """The console script."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, OSError, RuntimeError) as error:
        code = exit_code(error)
        if code is None:
            raise
        Output("--json" in sys.argv).fail(str(error), code)
        raise SystemExit(code) from None


def exit_code(error: Exception) -> int | None:
    """Exit code of an error that a user can mend; None for a fault of ours, which keeps its traceback."""
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.on_ray.cluster.local import ClusterError

    if isinstance(error, ClusterError):
        return 5
    if isinstance(error, ConfigError):
        return 2
    return 1 if isinstance(error, ValueError | OSError) else None
