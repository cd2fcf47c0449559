"""``jobs``: what runs on a cluster, what it said, and how to stop it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table

app = options.group("jobs", "See, follow and stop the jobs of a cluster.")
JobId = Annotated[str, typer.Argument(help="Id of a job, as submit and jobs list print it.", show_default=False)]


@app.command("list")
def list_jobs(
    address: options.Address = None,
    everything: Annotated[bool, typer.Option("--all", help="Also jobs that others submitted.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the jobs of a cluster, oldest first.

    Example: dhdiff-ray jobs list --address http://127.0.0.1:8265
    """
    from dhdiff_ray.on_ray.jobs import Jobs

    found = Jobs(options.needed_address(address)).list(everything)
    rows = [
        (job.id, job.verb, job.run, job.status, (job.ended or time.time()) - job.started if job.started else None)
        for job in found
    ]
    Output(as_json).data([job.as_dict() for job in found], table=table("", ("id", "verb", "run", "status", "s"), rows))


@app.command("logs")
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw its progress until it ends.")] = False,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Print what a job said, or follow it and take its exit code.

    Example: dhdiff-ray jobs logs --follow train-first-1a2b3c
    """
    from dhdiff_ray.cli.submit import attend
    from dhdiff_ray.on_ray.jobs import Jobs

    output = Output(as_json)
    jobs = Jobs(options.needed_address(address))
    if not follow:
        text = jobs.logs(job_id)
        output.data({"job": job_id, "log": text}, text=text)
        return
    info = attend(jobs, job_id, output)
    output.data({"job": info.as_dict()}, text=info.status)
    raise typer.Exit(info.exit_code)


@app.command("stop")
def stop(job_id: JobId, address: options.Address = None, as_json: options.Json = False) -> None:
    """Stop a job: it is asked to end, and killed after 3 s.

    Example: dhdiff-ray jobs stop train-first-1a2b3c
    """
    from dhdiff_ray.on_ray.jobs import Jobs

    jobs = Jobs(options.needed_address(address))
    stopped = jobs.stop(job_id)
    info = jobs.wait(job_id, timeout=10)
    text = f"{job_id} {info.status}" if stopped else f"{job_id} had already ended: {info.status}"
    Output(as_json).data({"job": info.as_dict(), "stopped": stopped}, text=text)
