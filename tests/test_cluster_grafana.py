"""cluster/grafana.json asks Prometheus only for what exists: our metrics, the endpoint's, and Ray's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray

from dhdiff_ray.serving.middleware import Counters

ROOT = Path(__file__).resolve().parents[1]
BOARD = json.loads((ROOT / "cluster" / "grafana.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
OURS = {
    "ray_dhdiff_pairs_total": {"run", "category"},
    "ray_dhdiff_failures_total": {"verb", "category"},
    "ray_dhdiff_seconds_per_pair_bucket": {"category", "le"},
    "ray_dhdiff_gpu_memory_bytes": {"category"},
}
"""What a run exports through Ray, with Ray's prefix, and its labels; Ray adds its own."""


def endpoints() -> dict[str, set[str]]:
    """What the endpoint's /metrics exports, from the counters themselves."""
    found = {}
    for metric in Counters().registry.collect():
        ending = {"counter": "_total", "histogram": "_bucket"}.get(metric.type, "")
        found[metric.name + ending] = {"route", "status", "category", "le"}
    return found


def selectors(query: str) -> list[tuple[str, dict[str, Any]]]:
    """Metrics in a query, with what they are filtered by."""
    found = re.findall(r"\b((?:ray|dhdiff|autoscaler)_\w+)(?:\{([^}]*)\})?", query)
    return [(name, dict(re.findall(r'(\w+)[=!]~?"([^"]*)"', labels))) for name, labels in found]


def test_every_metric_exists_with_the_labels_it_is_asked_by():
    own = OURS | endpoints()
    assert {"dhdiff_requests_total", "dhdiff_request_seconds_bucket", "dhdiff_pairs_total"} <= set(own)
    folder = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    rays = "\n".join(file.read_text() for file in folder.glob("*_panels.py"))
    asked = set()
    for query in QUERIES:
        for name, labels in selectors(query):
            asked.add(name)
            if name in own:
                assert set(labels) <= own[name], query
                grouped = {word for group in re.findall(r"by \(([^)]*)\)", query) for word in group.split(", ")}
                assert grouped <= own[name], query
            else:
                assert re.search(rf"\b{name}\b", rays), f"Ray's own panels do not know {name}"
    assert set(OURS) <= asked


def test_every_query_is_promql():
    parser = pytest.importorskip("promql_parser")
    for query in QUERIES:
        filled = query.replace("$__rate_interval", "5m")
        filled = re.sub(r"\$(\w+)", ".*", filled)
        assert parser.parse(filled) is not None, query
    with pytest.raises(ValueError):
        parser.parse("sum by (le (x)")


def test_panels_are_told_apart_and_do_not_overlap():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"] and panel["description"] and panel["datasource"]["uid"] == "${datasource}"


def test_every_variable_that_is_used_is_defined():
    known = {variable["name"] for variable in BOARD["templating"]["list"]} | {"__rate_interval"}
    used = {name for query in QUERIES for name in re.findall(r"\$(\w+)", query)}
    assert used <= known and {"run", "category", "SessionName"} <= used
