"""``submit``: send one verb to a cluster and follow it to its end; a sub-command per verb.

Not in the paper. Decided: options may stand before the verb, too; one of another verb is refused with where it belongs.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import typer

from dhdiff_ray.cli.commands.report import show_report
from dhdiff_ray.cli.door import check_door
from dhdiff_ray.cli.follow import attend, connected, finish, next_steps
from dhdiff_ray.cli.help import Command, Group, group
from dhdiff_ray.cli.options import JobOptions, Typed, TypedPairs, address_or_environment, needed_address, spread
from dhdiff_ray.cli.output import Output, table
from dhdiff_ray.cli.resolve import resolve, samples_here

if TYPE_CHECKING:
    from dhdiff_ray.config import Config
    from dhdiff_ray.config.load import Loaded
    from dhdiff_ray.on_ray.cluster.jobs import Jobs
    from dhdiff_ray.records import Sample


class Verbs(Group):
    """The verbs of ``submit``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Take the verb to the front, and refuse options of other verbs.

        Raises:
            ConfigError: there is one; the message says where it belongs.
        """
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names and not ctx.resilient_parsing:
            args = self._verb_first(ctx, args)
        for word in args[1:] if args and args[0] in self.commands else ():
            flag = word.partition("=")[0] if word.startswith("--") else word[:2]
            options = {name: p.opts[0] for name, verb in self.commands.items() for p in verb.params if flag in p.opts}
            if options and args[0] not in options:
                from dhdiff_ray.config.load import ConfigError

                option, owners = next(iter(options.values())), " and ".join(options)
                raise ConfigError(f"{option} belongs to {owners}, not to {args[0]}")
        return super().parse_args(ctx, args)

    def _verb_first(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """``--run first train`` as ``train --run first``."""
        widest = self.commands["all"]  # its options are those of every verb
        parser = widest.make_parser(typer.Context(widest, parent=ctx))
        parser.allow_interspersed_args = False
        given, rest, _ = parser.parse_args(list(args))
        verb = given["recipe"]  # the first word that is neither an option nor an option's value
        if not verb and "help" not in given:
            ctx.fail(f"which verb? there are: {', '.join(self.commands)}")
        return [verb, *args[: len(args) - len(rest) - 1], *rest] if verb else ["--help"]


class Page(Command):
    """What is no job: it takes all options of the others, and shows those that have an effect."""

    shown = ("recipe", "run", "storage", "as_json", "help")


app = group(
    "submit",
    "Train, make pairs, score and detect, each as a Ray job.\n\n"
    "A run begins with train or all. The others go on with it and take its settings.",
    cls=Verbs,
)


@app.command("train")
@spread
def train(typed: Typed, job: JobOptions) -> None:
    """Train a model of each category: this begins a run.

    A recipe with rows, such as jobs/table8.toml, is a table: every row is trained, sampled and judged.
    One with sources, such as jobs/foundation_tiny.toml, trains one model of all their products: a foundation.

    Example: dhdiff-ray submit train --root data/mvtec --preset tiny --run first
    """
    send("train", typed, job)


@app.command("synthesize")
@spread
def synthesize(typed: TypedPairs, job: JobOptions) -> None:
    """Draw pairs of image and mask with the run's models.

    Example: dhdiff-ray submit synthesize --run first -n 100
    """
    send("synthesize", typed, job)


@app.command("score")
@spread
def score(typed: Typed, job: JobOptions) -> None:
    """Score the run's pairs; any other folder: dhdiff-ray score.

    Inception Score, IC-LPIPS, originality, KID, and whether image and mask agree.

    Example: dhdiff-ray submit score --run first
    """
    send("score", typed, job)


@app.command("detect")
@spread
def detect(typed: Typed, job: JobOptions) -> None:
    """Train detectors on the run's pairs; test them on real images.

    Example: dhdiff-ray submit detect --run first
    """
    send("detect", typed, job)


@app.command("all")
@spread
def everything(typed: TypedPairs, job: JobOptions) -> None:
    """All four, category by category; begins a run or goes on.

    Example: dhdiff-ray submit all jobs/mvtec.toml --root data/mvtec --run whole
    """
    send("all", typed, job)


@app.command("report", cls=Page)
@spread
def report(typed: Typed, job: JobOptions) -> None:
    """The same as dhdiff-ray report: no job, no cluster.

    Example: dhdiff-ray submit report --run first
    """
    if config := prepared("report", typed, job):
        show_report(config, Output(job.as_json))


def send(verb: str, typed: Typed, job: JobOptions) -> None:
    """Send a verb; follow it and leave with its exit code, unless it is detached."""
    from dhdiff_ray.report.ablation import as_rows
    from dhdiff_ray.run.run import Run

    output = Output(job.as_json)
    detached = job.detach and not job.dry_run
    cluster = needed_address(job.address) if detached else address_or_environment(job.address)
    config = prepared(verb, typed, job)
    if config is None:
        return
    is_table = verb == "train" and bool(config.ablation.rows)
    name = "ablate" if is_table else verb
    folder = Run(config).folder
    with connected(cluster, output, insecure=job.insecure, called=job.address) as jobs:
        job_id = _same(jobs, name, config, output) or jobs.submit(name, config, resume=job.resume, check=job.check)
        if job.detach:
            output.note(next_steps(jobs, job_id))
            output.data({"job": job_id, "address": jobs.address}, text=job_id)
            return
        info = attend(jobs, job_id, output, job.verbose)
    if is_table and folder.exists("table.json"):
        shown = table(config.ablation.table or "ablation", *as_rows(folder.read_json("table.json")["rows"], short=True))
        output.people.print(shown)
    finish(info, output, folder.uri)


def prepared(verb: str, typed: Typed, job: JobOptions) -> Config | None:
    """The configuration of a verb, with a warning for each switch that cannot work; None if ``--dry-run`` showed it.

    Raises:
        ConfigError: a price where nothing is priced.
    """
    from dhdiff_ray.config.checks import idle_switches
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.run.foundation import is_ours

    output = Output(job.as_json)
    if job.hourly is not None and not job.dry_run:
        raise ConfigError("--price only tells what a job would cost; add --dry-run")
    loaded = resolve(verb, typed, resume=job.resume)
    here = job.address == "local" or address_or_environment(job.address) is None
    samples = check_door(verb, loaded, here) if verb != "report" else []
    given = [key for key, origin in loaded.origins.items() if not origin.startswith(("preset ", "run"))]
    from_foundation = verb in ("train", "all") and is_ours(loaded.config)
    for line in idle_switches(loaded.config, given, from_foundation=from_foundation):
        output.warn(line)
    if not job.dry_run:
        return loaded.config
    _show_plan(output, verb, loaded, samples, job.hourly)
    return None


def _same(jobs: Jobs, verb: str, config: Config, output: Output) -> str | None:
    """The job that does this already, if one does."""
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


def _show_plan(output: Output, verb: str, loaded: Loaded, samples: list[Sample], hourly: float | None) -> None:
    """Show what would be sent, what it needs and, where the dataset can be seen from here, what it will cost."""
    from dhdiff_ray.config import FOUNDATION_NAME
    from dhdiff_ray.on_ray.cluster.checks import resources
    from dhdiff_ray.report import price
    from dhdiff_ray.run.run import Run

    config = loaded.config
    folder, need = Run(config).folder.uri, resources(verb, config)
    counts = dict(Counter(sample.category for sample in samples))
    names = list(config.data.categories) or sorted(counts) or ["all"]
    lines = [f"would submit {verb} for the run {folder}", f"categories: {', '.join(names)}"]
    lines += [f"  {name}: {n} images" for name, n in counts.items()]
    samples = samples_here(config) if verb == "synthesize" else samples
    defects = Counter(category for category, defect in {(s.category, s.defect) for s in samples if not s.is_good})
    defects.update(dict.fromkeys((s.category for s in samples), 0))
    if config.sources:  # one model, of which no pairs are drawn
        defects = Counter({FOUNDATION_NAME: 0})
    cost = price.price(config, defects, hourly) if defects else {}
    lines += price.told(cost) if cost else []
    if need:
        lines.append("at once: " + ", ".join(f"{value:g} {name}" for name, value in need.items()))
    lines += [f"{key} from {origin}" for key, origin in loaded.origins.items() if not origin.startswith("preset ")]
    presets = sorted({origin for origin in loaded.origins.values() if origin.startswith("preset ")})
    lines += [f"the rest from {name}, shown by: dhdiff-ray config show --{name} --origin" for name in presets]
    value = {"verb": verb, "folder": folder, "categories": names, "images": counts, "resources": need, "price": cost}
    value |= {"config": config.model_dump(mode="json"), "origins": loaded.origins}
    output.data(value, text="\n".join(lines))
