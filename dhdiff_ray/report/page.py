"""The run's page: everything a run folder holds, in one HTML file that opens anywhere (sections IV-C and IV-D).

Not in the paper. The page reads the run's folder and nothing else but the real images its split names; it needs no
cluster, no network and no script (one only sorts tables). First stand the verdict and the pairs, then plots; tables
are folded below them. What was not run yet is named with the command that runs it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import dhdiff_ray
from dhdiff_ray.config import Config, DataConfig
from dhdiff_ray.data.registry import DatasetError, open_dataset
from dhdiff_ray.detector.results import RESULT, verdicts
from dhdiff_ray.pairs.card import sampling_told
from dhdiff_ray.pairs.writer import sampled_with
from dhdiff_ray.report.charts import ap_charts, mask_charts
from dhdiff_ray.report.curves import loss_curves
from dhdiff_ray.report.gallery import galleries, served_pair
from dhdiff_ray.report.paper import paper_tables
from dhdiff_ray.report.shapes import MOST, mask_shapes
from dhdiff_ray.report.summary import masks_sentence, pairs_sentence
from dhdiff_ray.report.tables import Table, alignment_table, cost_table, detection_table, score_tables, timing_table
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import SPLIT, Run
from dhdiff_ray.run.status import Status, failures

PAGE = "report.html"


def write_report(config: Config, thumbs: int = 6) -> str:
    """Write ``report.html`` into the run that the configuration names; returns the page's path or URI."""
    folder = Run(config).folder
    folder.write_bytes(PAGE, build_report(folder, thumbs).encode())
    return folder.below(PAGE).uri


def run_tables(folder: RunFolder) -> list[Table]:
    """Every table of figures that a run has by now, the paper's beside them: what the page shows, for a terminal.

    Raises:
        ValueError: the folder is not a run.
    """
    run = Run.stored(folder)
    scores = _json(folder, "scores.json") or {}
    detection = _json(folder, "detection.json") or {}
    rows = scores.get("scores", [])
    tables = [alignment_table(scores.get("pair_alignment", {})), *score_tables(rows), detection_table(detection)]
    return [table for table in tables if table] + paper_tables(run.config, rows, detection, _categories(run))


def run_verdicts(folder: RunFolder) -> list[str]:
    """Whether the pairs help, in a sentence for the run and one for each of several categories."""
    return verdicts(_json(folder, RESULT) or {})


def build_report(folder: RunFolder, thumbs: int = 6) -> str:
    """The page of a run as HTML.

    Args:
        folder: the run.
        thumbs: pairs shown per defect, the first ones: they are not chosen.

    Raises:
        ValueError: the folder is not a run.
    """
    run = Run.stored(folder)
    config = run.config
    scores = _json(folder, "scores.json") or {}
    detection = _json(folder, "detection.json") or {}
    events = read_events(folder)
    storage, _, name = folder.uri.rpartition("/")
    environment = Environment(
        loader=PackageLoader("dhdiff_ray", "report/template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        name=name,
        config=config,
        config_text=json.dumps(config.model_dump(mode="json"), indent=2),
        digest=config.digest(),
        facts=_facts(run),
        version=dhdiff_ray.__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        categories=galleries(run, thumbs),
        failures=failures(Status(events)),
        curves=loss_curves(folder),
        scores=score_tables(scores.get("scores", [])),
        alignment=alignment_table(scores.get("pair_alignment", {})),
        helps=pairs_sentence(detection),
        agree=masks_sentence(scores.get("pair_alignment", {})),
        verdicts=verdicts(detection),
        ap=ap_charts(detection),
        masks=mask_charts(mask_shapes(run)),
        most=MOST,
        detection=detection_table(detection),
        paper=paper_tables(config, scores.get("scores", []), detection, _categories(run)),
        costs=cost_table(config, events),
        timings=timing_table(_json(folder, "timings.json"), events),
        served=served_pair(folder),
        command=lambda verb: f"dhdiff-ray submit {verb} --run {name} --storage {storage}",
    )


def _categories(run: Run) -> list[str]:
    """The run's categories, none while it has no split."""
    return list(run.split.categories) if run.folder.exists(SPLIT) else []


def _facts(run: Run) -> list[tuple[str, str]]:
    config = run.config
    try:
        loader = open_dataset(config.data.dataset)
        terms = " (forbids commercial use)" if loader.non_commercial else ""
        licence, source = loader.licence + terms, loader.source
    except DatasetError:
        licence, source = "unknown: the dataset's loader is not installed here", ""
    data, train = config.data, config.train
    return [
        ("Dataset", config.data.dataset + (f" ({source})" if source else "")),
        ("Licence of the real images", licence),
        ("Resolution", f"{data.resolution} × {data.resolution} px, raw mask {data.grid} × {data.grid}"),
        ("Anomalies trained on", f"{_share(data)} of each defect"),
        ("Training", f"{train.steps} steps × {train.global_batch_size}, reference {train.reference}"),
        ("Pairs", sampling_told(sampled_with(run.folder) or {"": config.synthesize.model_dump(mode="json")})),
        ("Seed", str(config.run.seed)),
    ]


def _share(data: DataConfig) -> str:
    share = f"{data.train_fraction:.0%}"
    names = {"fraction": share, "full": f"{share}, tested on all (which holds training images),"}
    return {**names, "kshot": str(data.shots), "given": "the dataset's own choice"}.get(data.split, f"a {data.split}")


def _json(folder: RunFolder, name: str) -> Any:
    return folder.read_json(name) if folder.exists(name) else None
