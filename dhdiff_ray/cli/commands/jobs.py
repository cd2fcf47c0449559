"""``jobs``: list the jobs of a cluster, read their logs, stop them."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.follow import attend, jobs_at
from dhdiff_ray.cli.help import group
from dhdiff_ray.cli.output import Output, status_table, table

app = group("jobs", "See, follow, stop and forget the jobs of a cluster.")
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job, as submit and jobs list print it.", show_default=False)
]


@app.command("list")
def list_jobs(
    address: options.Address = None,
    everything: Annotated[bool, typer.Option("--all", help="Also jobs that others submitted.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the jobs of a cluster, oldest first.

    Example: dhdiff-ray jobs list --address http://127.0.0.1:8265
    """
    listed = jobs_at(address).list(everything)
    rows = [
        (job.id, job.verb, job.run, job.status, (job.ended or time.time()) - job.started if job.started else None)
        for job in listed
    ]
    Output(as_json).data([job.as_dict() for job in listed], table=table("", ("id", "verb", "run", "status", "s"), rows))


@app.command("logs")
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow it until it ends.")] = False,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Print what a job said, or follow it and take its exit code.

    Example: dhdiff-ray jobs logs --follow train-first-1a2b3c
    """
    output, jobs = Output(as_json), jobs_at(address)
    if not follow:
        text = jobs.logs(job_id)
        output.data({"job": job_id, "log": text}, text=text)
        return
    info = attend(jobs, job_id, output)
    output.data({"job": info.as_dict()}, text=info.status)
    raise typer.Exit(info.exit_code)


@app.command("status")
def status(
    job_id: Annotated[
        str | None, typer.Argument(metavar="JOB", help="A job; leave it out with --run.", show_default=False)
    ] = None,
    run: options.Run = None,
    storage: options.Storage = None,
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Show how far a job or a run is: category by stage.

    With --run it is read from the run's folder, without any cluster.

    Example: dhdiff-ray jobs status --run first
    """
    from dhdiff_ray.run.status import Status, failures

    events, owner = _events(job_id, run, storage, address)
    progress = Status(events)
    output = Output(as_json)
    output.data({**owner, **progress.as_dict(time.time())}, table=status_table(progress))
    for line in failures(progress):
        output.warn(line)


@app.command("rm")
def remove(job_id: JobId, address: options.Address = None, as_json: options.Json = False) -> None:
    """Forget a job that has ended, and its log; its run stays.

    Example: dhdiff-ray jobs rm train-first-1a2b3c
    """
    jobs_at(address).remove(job_id)
    Output(as_json).data({"removed": job_id}, text=job_id)


def _events(
    job_id: str | None, run: str | None, storage: str | None, address: str | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events of a job from its log, or of a run from its folder, and what they belong to."""
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.run.events import event_of, read_events
    from dhdiff_ray.run.folder import RunFolder

    if (job_id is None) == (run is None):
        raise ConfigError("which one? name a job: dhdiff-ray jobs status JOB; or a run: dhdiff-ray jobs status --run R")
    if job_id is not None:
        jobs = jobs_at(address)
        events = [event for line in jobs.logs(job_id).splitlines() if (event := event_of(line))]
        return events, {"job": jobs.status(job_id).as_dict()}
    folder = RunFolder.of(storage or "runs", str(run))
    if not folder.exists():
        raise ValueError(f"there is no run {folder.uri}")
    return read_events(folder), {"folder": folder.uri}


@app.command("stop")
def stop(job_id: JobId, address: options.Address = None, as_json: options.Json = False) -> None:
    """Stop a job: it is asked to end, and killed after 3 s.

    Example: dhdiff-ray jobs stop train-first-1a2b3c
    """
    jobs = jobs_at(address)
    stopped = jobs.stop(job_id)
    info = jobs.wait(job_id, timeout=10)
    text = f"{job_id} {info.status}" if stopped else f"{job_id} had already ended: {info.status}"
    Output(as_json).data({"job": info.as_dict(), "stopped": stopped}, text=text)
