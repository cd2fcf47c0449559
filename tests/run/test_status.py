"""The table of a job is read from its events alone."""

import pytest

from dhdiff_ray.run.status import Status, as_cells, failures, spoken


def stage(verb, category, state, time, **more):
    return {"event": "stage", "verb": verb, "category": category, "state": state, "time": time, **more}


def progress(verb, category, done, total, time, event="progress"):
    return {"event": event, "verb": verb, "category": category, "done": done, "total": total, "time": time}


def test_a_running_stage_tells_its_share_and_the_time_left_at_the_pace_so_far():
    status = Status(
        [stage("train", "mesh", "running", 100.0), progress("train", "mesh", 25, 100, 110.0), {"event": "page"}]
    )
    (row,) = status.stages.items()
    assert row[1]["train"].left(110.0) == pytest.approx(30.0)
    assert as_cells(status, 110.0) == [("mesh", "25 %, 30 s left", "-", "-", "-", "0")]


def test_work_that_was_there_already_does_not_make_the_pace_look_faster():
    status = Status([progress("train", "mesh", 50, 100, 0.0, "start"), progress("train", "mesh", 60, 100, 10.0)])
    assert status.stages["mesh"]["train"].left(10.0) == pytest.approx(40.0)


def test_a_stage_that_gives_no_sign_for_a_while_says_so_and_one_that_moves_does_not():
    status = Status([stage("train", "mesh", "running", 100.0), progress("train", "mesh", 25, 100, 110.0)])
    assert as_cells(status, 120.0)[0][1] == "25 %, 20 s left"
    assert as_cells(status, 110.0 + 150)[0][1] == "25 %, no progress for 2 min"
    assert status.as_dict(260.0)["categories"]["mesh"]["train"]["quiet_seconds"] == 150
    status.read(progress("train", "mesh", 26, 100, 260.0))
    assert "no progress" not in as_cells(status, 261.0)[0][1]
    status.read(stage("train", "mesh", "done", 300.0, seconds=200.0))
    assert as_cells(status, 900.0)[0][1] == "done 3 min"


def test_the_detectors_of_a_category_are_one_stage():
    status = Status([progress("detect", "mesh, real", 50, 50, 1.0), progress("detect", "mesh, synthetic", 0, 50, 2.0)])
    assert list(status.stages) == ["mesh"]
    assert status.stages["mesh"]["detect"].share == 0.5


def test_a_verb_without_an_end_of_its_own_is_done_with_its_figures_unless_it_failed():
    status = Status([progress("score", "mesh", 40, 40, 1.0), {"event": "metric", "verb": "score", "category": "mesh"}])
    assert status.stages["mesh"]["score"].state == "done"
    failed = {"event": "failed", "verb": "score", "category": "mesh", "message": "no weights"}
    status.read(failed)
    status.read({"event": "metric", "verb": "score", "category": "mesh"})
    assert failures(status) == ["score mesh: no weights"]


def test_a_failure_keeps_its_reason_until_the_stage_runs_again():
    status = Status([stage("train", "mesh", "running", 1.0), stage("train", "mesh", "failed", 2.0, message="no room")])
    assert failures(status) == ["train mesh: no room"]
    assert as_cells(status, 3.0)[0][1] == "FAILED"
    status.read(stage("train", "mesh", "running", 4.0))
    status.read(stage("train", "mesh", "done", 9.0, seconds=5.0, gpu_seconds=10.0))
    assert failures(status) == []
    assert as_cells(status, 9.0) == [("mesh", "done 5 s", "-", "-", "-", "10")]
    assert status.as_dict(9.0)["categories"]["mesh"]["train"]["state"] == "done"


@pytest.mark.parametrize(("seconds", "text"), [(42, "42 s"), (720, "12 min"), (11100, "3 h 05")])
def test_durations_are_told_as_a_person_would(seconds, text):
    assert spoken(seconds) == text
