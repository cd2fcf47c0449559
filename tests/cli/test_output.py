"""Data on stdout, words on stderr, progress as plain lines where no bar can be drawn."""

import contextlib
import io
import json
import sys

from rich.console import Console

from dhdiff_ray.cli.output import Output, ProgressView, table


def test_with_json_stdout_holds_one_document_and_stderr_the_words(capsys):
    output = Output(as_json=True)
    output.note("working")
    output.data({"a": [1]}, text="never shown")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [1]}
    assert captured.err == "working\n"


def test_without_json_the_text_is_the_data(capsys):
    Output().data({"a": 1}, text="one")
    assert capsys.readouterr() == ("one\n", "")


def test_a_path_in_brackets_is_printed_as_it_is(capsys):
    Output().note("[red]/a/b[/red] [1]")
    assert capsys.readouterr().err == "[red]/a/b[/red] [1]\n"


def test_tables_round_numbers_and_show_what_is_missing(capsys):
    Output().data([], table=table("", ("name", "value"), [("iou", 0.123456), ("ap", None)]))
    shown = capsys.readouterr().out
    assert "0.1235" in shown
    assert "-" in shown


def test_an_error_fits_the_terminal_and_what_is_to_be_typed_stays_whole():
    output = Output()
    shown = io.StringIO()
    output.people = Console(file=shown, force_terminal=True, width=80, color_system=None, highlight=False)
    output.fail("the run runs/first already exists; go on with it: --resume; or begin another: --run NEW_NAME", 2)
    assert shown.getvalue().splitlines() == [
        "error: the run runs/first already exists",
        "  go on with it: --resume",
        "  or begin another: --run NEW_NAME",
    ]
    output.people.file = shown = io.StringIO()
    output.warn("words " * 40 + "and a long one: " + "x" * 90)
    assert max(len(line) for line in shown.getvalue().splitlines() if "x" not in line) <= 80


def test_a_table_that_is_too_wide_loses_its_lines_and_then_lies_on_its_side(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    Output().data(
        [], table=table("", ("category", "defect", "images", "masks", "size"), [("ball_screw", "pit", 1, 2, 3)])
    )
    shown = capsys.readouterr().out
    assert "ball_screw" in shown
    assert "│" not in shown
    heads = [f"measure_{number}" for number in range(9)]
    Output().data([], table=table("", ("category", *heads), [("ball_screw", *range(9)), ("bottle", *range(9))]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["category", "ball_screw", "bottle"]
    assert ["measure_8", "8", "8"] in [line.split() for line in lines]
    assert max(map(len, lines)) <= 40


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    with ProgressView(Output()) as view:
        for done in (1, 2, 3, 10):
            view.event(
                {"event": "progress", "verb": "train", "category": "bottle", "done": done, "total": 10, "loss": 0.5}
            )
    assert capsys.readouterr().err.splitlines() == ["train bottle 1/10 loss 0.5", "train bottle 10/10 loss 0.5"]


def test_a_failed_category_is_named(capsys):
    with ProgressView(Output()) as view:
        view.event({"event": "failed", "category": "cable", "message": "no masks"})
    assert "cable: no masks" in capsys.readouterr().err


def test_unknown_events_are_left_to_the_log(capsys):
    with ProgressView(Output()) as view:
        view.event({"event": "something new"})
    assert capsys.readouterr().err == ""


def test_what_a_library_prints_does_not_reach_stdout(capsys):
    output = Output(as_json=True)
    with contextlib.redirect_stdout(sys.stderr):
        print("(raylet) WARNING")
        output.data([1])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [1]
    assert captured.err == "(raylet) WARNING\n"
