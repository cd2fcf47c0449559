"""Follow a job to its end, on a shared cluster or on a private one that lives as long as the command.

Not in the paper. Decided: the exit code says what happened to the job; Ctrl-C leaves a job on somebody's cluster
running and says how to come back to it, and stops one on the private cluster, which ends with the command.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from dhdiff_ray.cli.options import needed_address
from dhdiff_ray.cli.output import Output, ProgressView, StatusView

if TYPE_CHECKING:
    from dhdiff_ray.on_ray.cluster.jobs import JobInfo, Jobs
    from dhdiff_ray.on_ray.cluster.local import LocalCluster

TAIL = 30
"""Lines of the log shown when a job fails without saying why."""


@contextlib.contextmanager
def connected(
    address: str | None, output: Output, *, insecure: bool = False, called: str | None = None
) -> Iterator[Jobs]:
    """The jobs of the given cluster, or of a private one that lives as long as the context.

    Args:
        address: of the cluster, or None.
        output: for words.
        insecure: use a cluster that asks nobody for a token.
        called: what the user called the cluster, for the commands that messages name.
    """
    from dhdiff_ray.on_ray.cluster.jobs import Jobs

    if address:
        jobs = Jobs(address, called)
        jobs.check_cluster(insecure=insecure)
        yield jobs
        return
    with private_cluster(output) as cluster:
        yield Jobs(cluster)


def jobs_at(address: str | None) -> Jobs:
    """The jobs of a cluster that must exist already.

    Raises:
        ConfigError: neither the flag nor a variable names one.
    """
    from dhdiff_ray.on_ray.cluster.jobs import Jobs

    return Jobs(needed_address(address))


@contextlib.contextmanager
def private_cluster(output: Output) -> Iterator[LocalCluster]:
    """A cluster on this machine that lives as long as the context."""
    from dhdiff_ray.on_ray.cluster.local import local_cluster

    output.note("starting a private cluster on this machine")
    # What Ray's processes print must not reach stdout, which holds the command's data alone.
    with contextlib.redirect_stdout(sys.stderr), local_cluster() as cluster:
        yield cluster


def attend(
    jobs: Jobs,
    job_id: str,
    output: Output,
    verbose: bool = False,
    on_event: Callable[[dict[str, Any]], object] = lambda _: None,
) -> JobInfo:
    """Follow a job to its end, drawing its events; ``on_event`` gets each of them too.

    Raises:
        typer.Exit: 130 after Ctrl-C; the job is stopped only on our private cluster.
    """
    from dhdiff_ray.run.events import event_of

    output.note(f"job {job_id} at {jobs.address}")
    tail: deque[str] = deque(maxlen=TAIL)
    explained = False
    try:
        with StatusView(output) if job_id.startswith("all-") else ProgressView(output) as view:
            for line in jobs.follow(job_id):
                event = event_of(line)
                if event is not None:
                    explained |= event.get("event") == "failed"
                    view.event(event)
                    on_event(event)
                elif verbose:
                    output.note(line)
                else:
                    tail.append(line)
        info = jobs.wait(job_id)
    except KeyboardInterrupt:
        if jobs.local is not None:
            output.note(f"stopping job {job_id} and its cluster")
            jobs.stop(job_id)
            jobs.wait(job_id, timeout=5)
        else:
            output.note("no longer following; the job goes on.\n" + next_steps(jobs, job_id))
        raise typer.Exit(130) from None
    if info.status == "FAILED" and not explained:
        for line in tail:
            output.note(line)
    return info


def finish(info: JobInfo, output: Output, folder: str) -> None:
    """Tell how the job ended and where its run lies, and leave with its exit code.

    Raises:
        typer.Exit: the job did not succeed.
    """
    if info.exit_code:
        verdict = "was stopped" if info.status == "STOPPED" else "failed"
        reason = (info.message.splitlines() or [""])[0][:300]
        output.fail(f"job {info.id} {verdict}: {reason}", info.exit_code, job=info.as_dict())
        raise typer.Exit(info.exit_code)
    output.note(f"{info.verb} done in {(info.ended or 0) - (info.started or 0):.0f} s")
    output.data({"job": info.as_dict(), "folder": folder}, text=folder)


def next_steps(jobs: Jobs, job_id: str) -> str:
    """How to come back to a job that goes on."""
    return (
        f"  follow: dhdiff-ray jobs logs --follow {job_id} --address {jobs.called}\n"
        f"  stop:   dhdiff-ray jobs stop {job_id} --address {jobs.called}"
    )
