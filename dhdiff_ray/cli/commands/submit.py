"""``submit``: send one verb to a cluster and follow it to its end.

Not in the paper. Decided: the exit code says what happened to the job; Ctrl-C leaves a job on somebody's cluster
running and says how to come back to it, and stops one on the private cluster, which ends with the command.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output
from dhdiff_ray.cli.resolve import Typed, check_dataset, resolve, run_folder

if TYPE_CHECKING:
    from dhdiff_ray.config import Config
    from dhdiff_ray.on_ray.cluster.jobs import JobInfo, Jobs
    from dhdiff_ray.on_ray.cluster.local import LocalCluster

TAIL = 30
"""Lines of the log shown when a job fails without saying why."""


class Verb(StrEnum):
    """What can be submitted, in the order of the line."""

    train = "train"
    synthesize = "synthesize"
    score = "score"
    detect = "detect"
    all = "all"
    report = "report"


def submit(
    verb: Annotated[Verb, typer.Argument(help="What to do.", show_default=False)],
    recipe: options.Recipe = None,
    preset: options.Preset = None,
    dataset: options.DatasetName = None,
    root: options.Root = None,
    category: options.Categories = None,
    run: options.Run = None,
    storage: options.Storage = None,
    pairs: Annotated[
        int | None, typer.Option("--pairs", "-n", min=1, help="synthesize: pairs per defect.", show_default=False)
    ] = None,
    min_iou: Annotated[
        float | None,
        typer.Option("--filter", min=0, max=1, help="synthesize, all: draw pairs that agree less again. [default: 0]"),
    ] = None,
    sets: options.Sets = None,
    address: options.Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the run already has.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, send nothing.")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Refuse what the cluster cannot hold now.")] = True,
    insecure: options.Insecure = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the job's whole log.")] = False,
    as_json: options.Json = False,
) -> None:
    """Send a verb to a cluster as a Ray job; all is the whole line per category; report is written here.

    Example: dhdiff-ray submit train --dataset mvtec --root data/mvtec --preset tiny -c bottle --run first

    Then: dhdiff-ray submit synthesize --run first -n 100
    """
    from dhdiff_ray.config.checks import idle_switches
    from dhdiff_ray.config.load import ConfigError

    output = Output(as_json)
    for flag, value in (("--pairs", pairs), ("--filter", min_iou)):
        if value is not None and verb not in (Verb.synthesize, Verb.all):
            raise ConfigError(f"{flag} belongs to synthesize and all, not to {verb}")
    if min_iou is not None:
        sets = [*(sets or []), f"synthesize.min_iou={min_iou}"]
    typed = Typed(recipe, preset, dataset, root, category, run, storage, sets, pairs)
    loaded = resolve(verb, typed, resume=resume)
    counts = check_dataset(loaded.config) if verb in (Verb.train, Verb.all) else {}
    typed_keys = [key for key, origin in loaded.origins.items() if not origin.startswith(("preset ", "run"))]
    for line in idle_switches(loaded.config, typed_keys):
        output.warn(line)
    if dry_run:
        _show_plan(output, verb, loaded.config, loaded.origins, counts)
        return
    if verb is Verb.report:
        page = make_report(loaded.config)
        output.data({"report": page}, text=page)
        return
    where = options.address_or_environment(address)
    if detach and not where:
        options.needed_address(None)
    table = verb is Verb.train and bool(loaded.config.ablation.rows)
    with connected(where, output, insecure=insecure, called=address) as jobs:
        name = "ablate" if table else verb
        job_id = _same(jobs, name, loaded.config, output)
        job_id = job_id or jobs.submit(name, loaded.config, resume=resume, check=check)
        if detach:
            output.note(_next_steps(jobs, job_id))
            output.data({"job": job_id, "address": jobs.address}, text=job_id)
            return
        info = attend(jobs, job_id, output, verbose)
    if table and run_folder(loaded.config).exists("table.json"):
        show_table(output, loaded.config)
    finish(info, output, loaded.config)


@contextlib.contextmanager
def connected(
    address: str | None, output: Output, *, insecure: bool = False, called: str | None = None
) -> Iterator[Jobs]:
    """The jobs of the given cluster, or of a private one that lives as long as the context.

    Args:
        address: of the cluster, or None.
        output: where to tell.
        insecure: use a cluster that asks nobody for a token.
        called: what the user called the cluster, for the commands that are told.
    """
    from dhdiff_ray.on_ray.cluster.jobs import Jobs

    if address:
        jobs = Jobs(address, called)
        jobs.check_cluster(insecure=insecure)
        yield jobs
        return
    with private_cluster(output) as cluster:
        yield Jobs(cluster)


def _same(jobs: Jobs, verb: str, config: Config, output: Output) -> str | None:
    """The job that does this already, if one does.

    Raises:
        ConfigError: another job works on the run.
    """
    from dhdiff_ray.config.load import ConfigError

    there = jobs.working_on(config)
    if there is None:
        return None
    if there.verb == verb and there.metadata.get("config_digest") == config.digest():
        output.note(f"job {there.id} does this already; following it")
        return there.id
    raise ConfigError(
        f"job {there.id} ({there.verb}) works on the run {config.run.name!r}; follow it: dhdiff-ray jobs logs --follow "
        f"{there.id}; or stop it first: dhdiff-ray jobs stop {there.id}"
    )


@contextlib.contextmanager
def private_cluster(output: Output) -> Iterator[LocalCluster]:
    """A cluster on this machine that lives as long as the context."""
    from dhdiff_ray.on_ray.cluster.local import local_cluster

    output.note("starting a private cluster on this machine")
    with output.alone_on_stdout(), local_cluster() as cluster:
        yield cluster


def attend(
    jobs: Jobs,
    job_id: str,
    output: Output,
    verbose: bool = False,
    heard: Callable[[dict[str, Any]], object] = lambda _: None,
) -> JobInfo:
    """Follow a job to its end, drawing its events; ``heard`` gets each of them too.

    Raises:
        typer.Exit: 130 after Ctrl-C; the job is stopped only on our private cluster.
    """
    from dhdiff_ray.cli.status_view import StatusView
    from dhdiff_ray.run.events import event_of

    output.note(f"job {job_id} at {jobs.address}")
    tail: deque[str] = deque(maxlen=TAIL)
    explained = False
    try:
        whole = job_id.startswith("all-")
        with StatusView(output) if whole else output.progress() as view:
            for line in jobs.follow(job_id):
                event = event_of(line)
                if event is not None:
                    explained |= event.get("event") == "failed"
                    view.event(event)
                    heard(event)
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
            output.note("no longer following; the job goes on.\n" + _next_steps(jobs, job_id))
        raise typer.Exit(130) from None
    if info.status == "FAILED" and not explained:
        for line in tail:
            output.note(line)
    return info


def finish(info: JobInfo, output: Output, config: Config) -> None:
    """Tell how the job ended, and leave with its exit code.

    Raises:
        typer.Exit: the job did not succeed.
    """
    seconds = (info.ended or 0) - (info.started or 0)
    folder = run_folder(config).uri
    if info.exit_code:
        verdict = "was stopped" if info.status == "STOPPED" else "failed"
        reason = (info.message.splitlines() or [""])[0][:300]
        output.fail(f"job {info.id} {verdict}: {reason}", info.exit_code, job=info.as_dict())
        raise typer.Exit(info.exit_code)
    output.note(f"{info.verb} done in {seconds:.0f} s")
    output.data({"job": info.as_dict(), "folder": folder}, text=folder)


def show_table(output: Output, config: Config) -> None:
    """Show the table of a recipe with rows, as far as it is done."""
    from dhdiff_ray.cli.output import table
    from dhdiff_ray.report.ablation import as_short_rows

    head, lines = as_short_rows(run_folder(config).read_json("table.json")["rows"])
    output.note_table(table(config.ablation.table or "ablation", head, lines))


def make_report(config: Config) -> str:
    """Write the run's page, here: it reads the run's folder and needs no cluster; returns where it is."""
    from dhdiff_ray.report.page import write_report

    return write_report(config)


def _next_steps(jobs: Jobs, job_id: str) -> str:
    return (
        f"  follow: dhdiff-ray jobs logs --follow {job_id} --address {jobs.called}\n"
        f"  stop:   dhdiff-ray jobs stop {job_id} --address {jobs.called}"
    )


def _price(verb: str, config: Config) -> dict[str, Any]:
    """What the job will cost; nothing where the dataset cannot be seen from here."""
    from dhdiff_ray.cli.resolve import defects_of
    from dhdiff_ray.report.price import price

    defects = defects_of(config)
    return price(config, defects) if defects else {}


def _show_plan(output: Output, verb: str, config: Config, origins: dict[str, str], counts: dict[str, int]) -> None:
    from dhdiff_ray.on_ray.cluster.checks import resources

    folder = run_folder(config).uri
    need = resources(verb, config)
    names = list(config.data.categories) or sorted(counts) or ["all"]
    lines = [f"would submit {verb} for the run {folder}", f"categories: {', '.join(names)}"]
    lines += [f"  {name}: {n} images" for name, n in counts.items()]
    cost = _price(verb, config) if verb in ("train", "synthesize", "all") else {}
    if cost:
        from dhdiff_ray.report.price import told

        lines += told(cost)
    if need:
        lines.append("at once: " + ", ".join(f"{value:g} {name}" for name, value in need.items()))
    lines += [f"{key} from {origin}" for key, origin in origins.items()]
    value = {"verb": str(verb), "folder": folder, "categories": names, "images": counts, "resources": need}
    value |= {"price": cost}
    output.data({**value, "config": config.model_dump(mode="json"), "origins": origins}, text="\n".join(lines))
