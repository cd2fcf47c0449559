"""``serve``: answer requests for pairs with the models of a run."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output
from dhdiff_ray.cli.resolve import Typed, resolve
from dhdiff_ray.cli.submit import private_cluster

app = options.group("serve", "Serve the models of a run.")


@app.callback()
def serve() -> None:
    """Serve the models of a run."""


@app.command("up")
def up(
    run: Annotated[str, typer.Option(help="Run whose models answer.")],
    storage: options.Storage = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks one. [default: 8000]")] = None,
    sets: options.Sets = None,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Serve the models of a run until Ctrl-C.

    Example: dhdiff-ray serve up --run demo
    """
    from dhdiff_ray.on_ray import serve as on_ray_serve
    from dhdiff_ray.on_ray.cluster import auth_env

    output = Output(as_json)
    config = resolve("serve", Typed(run=run, storage=storage, sets=sets)).config
    where = options.address_or_environment(address)
    chosen = config.serve.port if port is None else port
    auth_env()
    with contextlib.ExitStack() as stack:
        if not where:
            stack.enter_context(private_cluster(output))
        url = on_ray_serve.up(config, address=where, port=chosen, block=False)
        output.data({"url": url}, text=url)
        output.note(f"try: curl {url}/v1/models; Ctrl-C ends it")
        try:
            wait_for_interrupt()
        finally:
            on_ray_serve.down(where)


@app.command("down")
def down(address: options.Address = None, as_json: options.Json = False) -> None:
    """Take the endpoint of a cluster down.

    Example: dhdiff-ray serve down --address http://127.0.0.1:8265
    """
    from dhdiff_ray.on_ray import serve as on_ray_serve
    from dhdiff_ray.on_ray.cluster import auth_env

    where = options.needed_address(address)
    auth_env()
    on_ray_serve.down(where)
    Output(as_json).data({"down": where}, text=where)


def wait_for_interrupt() -> None:
    """Sit still until Ctrl-C or SIGTERM.

    Raises:
        KeyboardInterrupt: then.
    """
    import threading

    threading.Event().wait()
