"""``cluster``: a Ray cluster on this machine that stays; for others see ``cluster/README.md``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.help import group
from dhdiff_ray.cli.output import Output

if TYPE_CHECKING:
    from dhdiff_ray.on_ray.cluster.standing import Standing

app = group("cluster", "Keep a Ray cluster on this machine, named local.")


@app.command("up")
def up(
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores to offer. [default: all]", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Jobs API; 0 picks a free one.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Start a cluster on loopback that stays until `cluster down`.

    It has a token of its own, and --address local is its name.

    Example: dhdiff-ray cluster up
    """
    from dhdiff_ray.on_ray.cluster import standing

    output = Output(as_json)
    output.note("starting a cluster on this machine")
    there = standing.up(cpus, port)
    output.data(_facts(there), text=there.address)
    output.note("use it: dhdiff-ray submit ... --address local; end it: dhdiff-ray cluster down")


@app.command("status")
def status(as_json: options.Json = False) -> None:
    """Show whether this machine's cluster is running.

    Example: dhdiff-ray cluster status
    """
    from dhdiff_ray.on_ray.cluster import standing

    output = Output(as_json)
    there = standing.standing()
    if there is None:
        output.data({"up": False}, text="no cluster stands; start one: dhdiff-ray cluster up")
        return
    facts = _facts(there)
    text = f"{there.address}, up for {facts['seconds'] / 60:.0f} min, {facts['processes']} processes"
    output.data(facts, text=text)


@app.command("down")
def down(as_json: options.Json = False) -> None:
    """Stop what `cluster up` started, and nothing else.

    Example: dhdiff-ray cluster down
    """
    from dhdiff_ray.on_ray.cluster import standing

    there = standing.down()
    Output(as_json).data(
        {"down": there.address if there else None}, text=f"{there.address} is down" if there else "no cluster stood"
    )


def _facts(there: Standing) -> dict[str, Any]:
    return {
        "up": True,
        "address": there.address,
        "token_file": str(there.token_file),
        "folder": str(there.folder),
        "seconds": round(time.time() - there.since, 1),
        "processes": len(there.processes()),
    }
