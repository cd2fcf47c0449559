"""Events reach the log and the run's folder, on a disk and on storage that cannot append."""

import json
import threading

import numpy as np
import pytest
from pyarrow import fs as pafs

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.__main__ import run
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.run.events import FILE, PREFIX, REFUSED, read_events
from dhdiff_ray.run.folder import RunFolder


class NoAppend(RunFolder):
    """A folder that is on the disk but is treated as an object store."""

    is_local = False


def test_an_event_is_one_line_in_the_log_and_one_in_the_file(tmp_path, capsys):
    folder = RunFolder.of(str(tmp_path), "r")
    with Events(folder, "train") as events:
        events.emit("progress", category="bottle", done=1, total=2, loss=np.float32(0.5))
        events.emit(event="done", verb="synthesize")
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(PREFIX) for line in lines)
    told = [json.loads(line.removeprefix(PREFIX)) for line in lines]
    assert told == read_events(folder)
    assert (told[0]["verb"], told[0]["loss"], told[1]["verb"]) == ("train", 0.5, "synthesize")
    assert told[0]["time"] > 1.7e9


def test_storage_without_append_keeps_what_earlier_verbs_wrote(tmp_path):
    folder = NoAppend(str(tmp_path / "r"))
    for verb in ("train", "synthesize"):
        with Events(folder, verb) as events:
            events.emit("start")
            events.emit("done")
    assert [(e["verb"], e["event"]) for e in read_events(folder)] == [
        ("train", "start"),
        ("train", "done"),
        ("synthesize", "start"),
        ("synthesize", "done"),
    ]


def test_storage_without_append_is_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr("dhdiff_ray.on_ray.events.FLUSH_SECONDS", 0.0)
    folder = NoAppend(str(tmp_path / "r"))
    Events(folder, "train").emit("start")
    assert len(read_events(folder)) == 1


def test_storage_without_append_writes_small_files_again_and_never_large_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("dhdiff_ray.on_ray.events.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("dhdiff_ray.on_ray.events.SEGMENT_CHARACTERS", 500)
    folder, written = NoAppend(str(tmp_path / "r")), []
    write = NoAppend.write_bytes

    def measured(self, name, data):
        written.append(len(data))
        write(self, name, data)

    monkeypatch.setattr(NoAppend, "write_bytes", measured)
    for verb in ("train", "synthesize", "score"):
        with Events(folder, verb) as events:
            for at in range(40):
                events.emit(n=at)
    assert [(e["verb"], e["n"]) for e in read_events(folder)] == [
        (verb, at) for verb in ("train", "synthesize", "score") for at in range(40)
    ]
    assert max(written) < 1000
    assert len(list(folder.files("events"))) > 5


def test_several_threads_never_tear_a_line(tmp_path):
    folder = RunFolder.of(str(tmp_path), "r")
    events = Events(folder, "train")
    threads = [threading.Thread(target=lambda: [events.emit(n=i) for i in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(folder)) == 200


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    folder = RunFolder.of(str(tmp_path), "r")
    Events(folder, "train").emit("start")
    with pafs.LocalFileSystem().open_append_stream(folder.path(FILE)) as stream:
        stream.write(b'{"event": "prog')
    assert [event["event"] for event in read_events(folder)] == ["start"]


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("a"), 1), (ConfigError("b"), REFUSED), (FileNotFoundError("c"), 1)], ids=str
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_code(tmp_path, capsys, error, code):
    file = tmp_path / "config.json"
    file.write_text(Config().model_dump_json())

    def main(config, resume):
        raise error

    with pytest.raises(SystemExit) as left:
        run(main, str(file))
    told = json.loads(capsys.readouterr().out.removeprefix(PREFIX))
    assert (left.value.code, told["event"], told["message"]) == (code, "failed", str(error))


def test_a_verb_gets_its_configuration_and_whether_to_resume(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(Config.model_validate({"train": {"steps": 3}}).model_dump_json())
    got = []

    def main(config, resume):
        got.append((config.train.steps, resume))
        return 0

    for resume in (False, True):
        with pytest.raises(SystemExit) as left:
            run(main, str(file), resume)
        assert left.value.code == 0
    assert got == [(3, False), (3, True)]


def test_a_fault_of_ours_keeps_its_traceback(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(Config().model_dump_json())

    def main(config, resume):
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(main, str(file))
