"""``serve``: answer requests for pairs with the models of a run."""

from __future__ import annotations

import contextlib
import os
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import complete, options
from dhdiff_ray.cli.follow import jobs_at, private_cluster
from dhdiff_ray.cli.help import group
from dhdiff_ray.cli.output import Output, table
from dhdiff_ray.cli.resolve import resolve

if TYPE_CHECKING:
    from dhdiff_ray.on_ray.cluster.jobs import JobInfo, Jobs

app = group("serve", "Serve the models of a run.")


@app.command("up")
def up(
    run: Annotated[
        str, typer.Option(metavar="NAME", help="The run whose models answer.", autocompletion=complete.runs)
    ],
    storage: options.Storage = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks one. [default: 8000]")] = None,
    sets: options.Sets = None,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Serve the models of a run until Ctrl-C.

    Example: dhdiff-ray serve up --run demo
    """
    output = Output(as_json)
    config = resolve("serve", options.Typed(run=run, storage=storage, sets=sets)).config
    where = options.address_or_environment(address)
    chosen = config.serve.port if port is None else port
    on_ray_serve = _with_token()
    with contextlib.ExitStack() as stack:
        if not where:
            stack.enter_context(private_cluster(output))
        url = on_ray_serve.up(config, address=where, port=chosen)
        output.data({"url": url}, text=url)
        output.note(f"open it in a browser, or: curl {url}/v1/models; Ctrl-C ends it")
        try:
            wait_for_interrupt()
        finally:
            on_ray_serve.down(where) if where else on_ray_serve.drain()


@app.command("status")
def status(
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="An endpoint, http://HOST:8000.", show_default=False)
    ] = None,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Show what an endpoint serves, or a cluster's serving jobs.

    Example: dhdiff-ray serve status --url http://127.0.0.1:8000
    """
    output = Output(as_json)
    if url:
        state = _asked(url)
        rows = [(m["category"], ", ".join(m["defects"]), m["resolution"]) for m in state["models"]]
        output.data(state, table=table(state["url"], ("category", "defects", "pixels"), rows))
        return
    served = _serving(jobs_at(address))
    rows = [(job.id, job.run, job.status) for job in served]
    output.data([job.as_dict() for job in served], table=table("", ("id", "run", "status"), rows))


@app.command("logs")
def logs(address: options.Address = None, as_json: options.Json = False) -> None:
    """Print what the newest serving job of a cluster said.

    Example: dhdiff-ray serve logs --address http://127.0.0.1:8265
    """
    jobs = jobs_at(address)
    served = _serving(jobs)
    if not served:
        where = options.needed_address(address)
        raise ValueError(f"nothing was served at {where}; begin with: dhdiff-ray serve up --run NAME --address {where}")
    text = jobs.logs(served[-1].id)
    Output(as_json).data({"job": served[-1].id, "log": text}, text=text)


@app.command("down")
def down(address: options.Address = None, as_json: options.Json = False) -> None:
    """Take the endpoint of a cluster down.

    Example: dhdiff-ray serve down --address http://127.0.0.1:8265
    """
    where = options.needed_address(address)
    _with_token().down(where)
    Output(as_json).data({"down": where}, text=where)


def _with_token() -> ModuleType:
    """What starts and ends endpoints, imported once the cluster's token is known: Ray reads it when it is imported."""
    from dhdiff_ray.on_ray.cluster.local import auth_env

    auth_env()
    from dhdiff_ray.on_ray.serve import up

    return up


def wait_for_interrupt() -> None:
    """Sit still until Ctrl-C or SIGTERM.

    Raises:
        KeyboardInterrupt: then.
    """
    import threading

    threading.Event().wait()


def _serving(jobs: Jobs) -> list[JobInfo]:
    """The serving jobs of a cluster, oldest first."""
    from dhdiff_ray.on_ray.serve.up import VERB

    return [job for job in jobs.list() if job.verb == VERB]


def _asked(url: str) -> dict[str, Any]:
    """Whether the endpoint is ready, and its models."""
    from dhdiff_ray.cli.commands.sample import TOKEN
    from dhdiff_ray.client import Client, EndpointError
    from dhdiff_ray.on_ray.cluster.local import ClusterError

    try:
        with Client(url, os.environ.get(TOKEN), patience=0, timeout=10) as client:
            return {"url": url, "ready": True, "models": client.models()}
    except EndpointError as error:
        hint = f"; a token is read from {TOKEN}" if error.status == 401 else ""
        raise ClusterError(f"{error}{hint}") from None
