import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from dhdiff_ray.report.page import build_report, run_tables, write_report
from dhdiff_ray.run.folder import RunFolder

VOID = {"meta", "img", "line", "polyline", "br", "link"}


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


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium on this machine")
def test_a_browser_draws_the_page_and_its_script_runs_without_complaint(finished_run, tmp_path):
    _, config, _ = finished_run
    page, shot = write_report(config), tmp_path / "page.png"
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    size = ["--window-size=1400,2000", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    done = subprocess.run([*command, *size, f"file://{page}"], capture_output=True, text=True, timeout=90, check=True)
    assert shot.stat().st_size > 50_000
    assert "CONSOLE" not in done.stderr
