import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dhdiff_ray.report.page import build_report, run_tables, write_report
from dhdiff_ray.run.folder import RunFolder

VOID = {"meta", "img", "line", "polyline", "path", "rect", "circle", "input", "br", "link"}


class Page(HTMLParser):
    """Tags that were opened and not closed, and every address the page refers to."""

    def __init__(self, html):
        super().__init__()
        self.open, self.addresses, self.images = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """A tag that closes itself leaves nothing open."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_of_a_finished_run_shows_every_part(finished_run):
    folder, config, _ = finished_run
    html = build_report(folder)
    for part in (
        "tiny-run",
        config.digest(),
        "CC0-1.0",
        "is_standin",
        "random weights",
        "1.250",
        "0.512",
        "95%",
        "0.984",
        "made pairs",
        "real pairs",
        "0.654",
        "0.667",
        "240.5",
        "302 s",
        "5.0 GB",
        "<polyline",
        "capsule",
        "squeeze",
        "From the endpoint",
    ):
        assert part in html, part
    assert "Not run yet" not in html


def test_the_page_is_whole_and_asks_the_network_for_nothing(finished_run):
    html = build_report(finished_run[0])
    page = Page(html)
    assert page.open == []
    assert page.images > 60
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "http" not in re.sub(r"data:image/[^\"]+", "", html)


def test_what_was_not_run_is_named_with_the_command_that_runs_it(started_run, tmp_path):
    html = build_report(started_run[0])
    assert Page(html).open == []
    for verb in ("train", "synthesize", "score", "detect"):
        assert f"dhdiff-ray submit {verb} --run tiny-run --storage {tmp_path}" in html


def test_as_many_pairs_are_shown_as_asked_for(finished_run):
    one, two = (Page(build_report(finished_run[0], thumbs=n)).images for n in (1, 2))
    assert one < two


def test_real_images_that_are_not_readable_from_here_leave_a_gap(finished_run):
    folder = finished_run[0]
    split = folder.read_json("split.json")
    folder.write_json("split.json", {**split, "root": "/nowhere"})
    html = build_report(folder)
    assert "not readable here" in html
    assert "made mask" in html


def test_the_page_names_what_failed_and_that_the_same_command_mends_it(finished_run):
    folder = finished_run[0]
    assert "What failed" not in build_report(folder)
    failed = {"event": "stage", "verb": "score", "category": "mesh", "state": "failed", "message": "no <room> left"}
    line = json.dumps({**failed, "time": 2e9}) + "\n"
    folder.write_bytes("events.jsonl", b"".join([folder.read_bytes("events.jsonl"), b"\n", line.encode()]))
    html = build_report(folder)
    assert Page(html).open == []
    assert "score mesh: no &lt;room&gt; left" in html
    assert "type the same command again" in html


def test_words_from_the_run_are_escaped(finished_run):
    folder = finished_run[0]
    scores = folder.read_json("scores.json")
    scores["scores"][0]["category"] = "<script>alert(1)</script>"
    folder.write_json("scores.json", scores)
    assert "<script>alert" not in build_report(folder)


def test_the_page_is_written_into_the_run(finished_run):
    folder, config, _ = finished_run
    where = write_report(config)
    assert where == f"{folder.uri}/report.html"
    assert folder.read_bytes("report.html").startswith(b"<!doctype html>")


def test_the_verdict_stands_first_then_the_pairs_then_plots_then_folded_tables(finished_run):
    html = build_report(finished_run[0])
    order = [html.index(part) for part in ("class=\"verdicts\"", "id=\"gallery\"", "id=\"detection\"", "id=\"masks\"",
        "id=\"training\"", "Do image and mask agree", "Stand-in scores", "is_standin")]  # fmt: skip
    assert order == sorted(order)
    assert "Whether masks lie on their defects cannot be judged yet" in html
    before = html[: html.index("<table")]
    assert before.rindex("<details") > before.rindex("</details"), "tables are folded"


def test_the_papers_tables_stand_only_beside_the_papers_data(finished_run):
    folder = finished_run[0]
    config = folder.read_json("config.json")
    folder.write_json("config.json", {**config, "data": {**config["data"], "dataset": "mvtec"}})
    assert "of the paper" not in build_report(folder)
    assert not [table for table in run_tables(folder) if "paper" in table.title]


def test_the_tables_can_be_had_without_the_page(finished_run, tmp_path):
    from typer.testing import CliRunner

    from dhdiff_ray.cli.app import app

    folder, _, _ = finished_run
    assert run_tables(folder)[0].title == "Do image and mask agree"
    words = ["report", "--run", "tiny-run", "--storage", str(tmp_path)]
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert document["report"].endswith("report.html")
    assert len(document["tables"]) == 3
    assert "Does a detector learn" in CliRunner().invoke(app, words).stdout


def test_the_verdict_and_the_spread_over_seeds_stand_with_the_figures(finished_run, tmp_path):
    from typer.testing import CliRunner

    from dhdiff_ray.cli.app import app

    folder, _, _ = finished_run
    detection = folder.read_json("detection.json")
    for kind, values in {"real": (0.5, 0.6), "real_synthetic": (0.8, 0.9)}.items():
        one = detection["mesh"]["synthetic"]
        several = [{**one, "pixel_ap": value} for value in values]
        detection["mesh"][kind] = {**one, "pixel_ap": sum(values) / 2, "by_seed": several}
    folder.write_json("detection.json", detection)
    told = "mesh: The pairs help: with the pairs pixel AP 85.0 ± 7.1, with real ones alone 55.0 ± 7.1 (2 seeds)"
    html = build_report(folder)
    assert told in html
    assert "<td>0.850 ± 0.071</td>" in html
    words = ["report", "--run", "tiny-run", "--storage", str(tmp_path)]
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["verdict"] == [told]
    assert "The pairs help" in CliRunner().invoke(app, words).output


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        build_report(RunFolder.of(str(tmp_path), "nothing"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium"):
        pytest.skip("needs chromium on this machine")
    pytest.importorskip("websockets")
    sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
    try:
        from browser import Browser
    finally:
        sys.path.pop(0)
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def test_a_browser_draws_the_page_and_its_script_runs_without_complaint(finished_run, browser, tmp_path):
    _, config, _ = finished_run
    browser.open(f"file://{write_report(config)}", width=1400)
    browser.shot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert browser.js("document.querySelectorAll('th button').length") > 0
    assert browser.complaints == []


def test_outlines_are_switched_by_key_and_a_table_is_sorted_by_its_head(finished_run, browser):
    browser.open(f"file://{write_report(finished_run[1])}")
    shown = "getComputedStyle(document.querySelector('.outline')).display !== 'none'"
    assert browser.js(shown)
    browser.js("document.querySelector('#outlines').focus()")
    browser.press(" ", 32, " ")
    assert not browser.js(shown)
    first = "document.querySelector('table.sortable tbody td:nth-child(2)').textContent"
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true })")
    browser.js("document.querySelectorAll('table.sortable th button')[1].click()")
    assert browser.js(first) == "made pairs"
    browser.js("document.querySelectorAll('table.sortable th button')[1].click()")
    assert browser.js(first) == "real pairs"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 800, 390])
def test_the_page_fits_its_window_and_can_be_read_in_both_schemes(finished_run, browser, width, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"file://{write_report(finished_run[1])}", width=width, phone=width < 500)
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true })")
    if folder := os.environ.get("DHDIFF_SHOTS"):
        browser.shot(Path(folder) / f"report-{width}-{scheme}.png")
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.faults_of_access() == []
    if width == 390:
        browser.js("document.querySelectorAll('#gallery img')[0].removeAttribute('alt')")
        assert [fault.split(":")[0] for fault in browser.faults_of_access()] == ["image-alt"], "axe-core looked"
