"""Pairs in archives: the pairs of the other layout, the same bytes however they came to be, mended by the same line."""

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from damaging import content, deleted, flipped, halved, made_again
from pyarrow import parquet
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.on_ray.verbs.score import Scorer, shards
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs import archives
from dhdiff_ray.pairs.export import export
from dhdiff_ray.pairs.intact import damaged_files
from dhdiff_ray.pairs.lots import crowded, lot_of, refuse_two_layouts
from dhdiff_ray.pairs.writer import (
    PairsError,
    conditions_of,
    finished_categories,
    layout_of,
    read_encoded,
    read_pair,
    read_pair_rows,
)
from dhdiff_ray.report.gallery import galleries
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

LAYOUT = "synthesize.layout=webdataset"
PLACE = "pairs/mesh/bent/000000"
MARKER = "synthesis/mesh/bent/000000.json"
MANIFEST = "pairs/mesh/archives.json"


@pytest.fixture(autouse=True)
def four_in_an_archive(monkeypatch):
    monkeypatch.setattr(archives, "MOST_PAIRS", 4)


def made(run, order=1):
    return made_again(run, ["mesh"], order)


def bare(rows):
    return [{key: value for key, value in row.items() if key != archives.FILES} for row in rows]


def asked_for(run, **fields):
    return Run(run.config.model_copy(update={"synthesize": run.config.synthesize.model_copy(update=fields)}))


@pytest.fixture(scope="module")
def archived_once(trained_once, images, load_run, tmp_path_factory):
    import shutil

    storage = tmp_path_factory.mktemp("archived")
    shutil.copytree(trained_once, storage / "trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "MOST_PAIRS", 4)
        made(Run(load_run(storage, images, "trained", LAYOUT, "synthesize.pairs_per_defect=5")))
    return storage / "trained"


@pytest.fixture
def run(archived_once, images, load_run, tmp_path):
    """A run with five pairs of each of the mesh's defects in archives of four."""
    import shutil

    shutil.copytree(archived_once, tmp_path / "archived" / "trained")
    return Run(load_run(tmp_path / "archived", images, "trained", LAYOUT, "synthesize.pairs_per_defect=5"))


def test_both_layouts_hold_the_same_pairs_and_rows_and_every_reader_agrees(run, trained, tmp_path):
    files = Run(trained("synthesize.pairs_per_defect=5"))
    made(files)
    one, two = read_pair_rows(files.folder, "mesh"), read_pair_rows(run.folder, "mesh")
    assert one == bare(two)
    assert [read_encoded(files.folder, row) for row in one] == [read_encoded(run.folder, row) for row in two]
    assert finished_categories(run.folder) == ["mesh"]
    assert layout_of(run.folder, "mesh") == "webdataset"
    for form in ("webdataset", "coco"):
        outs = [RunFolder.at(str(tmp_path / f"{form}{at}")) for at in range(2)]
        for source, out in zip((files, run), outs, strict=True):
            export(source.folder, out, form)
        assert [n for n in outs[0].files() if outs[0].read_bytes(n) != outs[1].read_bytes(n)] in ([], ["README.md"])
    pictures = [Detectors(r, "mesh", lambda *_: None).made_pairs() for r in (files, run)]
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    np.testing.assert_array_equal(pictures[0][1], pictures[1][1])
    states = [Scorer(r)(shards({"mesh": rows})[0]) for r, rows in ((files, one), (run, two))]
    assert states[0].keys() == states[1].keys()
    shown = [next(g for g in galleries(r, 2) if g.name == "mesh") for r in (files, run)]
    assert shown[0].made == shown[1].made
    assert [t.image for t in shown[0].defects["bent"]] == [t.image for t in shown[1].defects["bent"]]
    conditions = [conditions_of(r, "mesh") for r in (files, run)]
    assert conditions[0]["config_digest"] == conditions[1]["config_digest"]
    assert conditions[1]["pairs_digest"]


def test_a_unit_is_one_tar_in_webdatasets_naming_and_one_parquet_file_of_rows(run):
    names = list(run.folder.files("pairs/mesh/bent"))
    assert names == [f"pairs/mesh/bent/{first}{end}" for first in ("000000", "000004") for end in (".parquet", ".tar")]
    with tarfile.open(fileobj=io.BytesIO(run.folder.read_bytes(f"{PLACE}.tar"))) as tar:
        members = tar.getmembers()
        assert [m.name for m in members][:3] == [f"mesh/bent/000000.{e}" for e in ("image.png", "json", "mask.png")]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        row = json.load(tar.extractfile(members[1]))
    table = parquet.read_table(io.BytesIO(run.folder.read_bytes(f"{PLACE}.parquet")))
    assert table.num_rows == 4
    assert {name for name in row if row[name] != table.to_pylist()[0][name]} == set()
    assert "config_digest" not in row, "how many workers there were changes no byte"
    card = run.folder.read_bytes("pairs/README.md").decode()
    assert 'path: "*/*/*.tar"' in card
    assert "| mesh | bent | 5 |" in card


def test_archives_are_the_same_bytes_in_any_order_and_whether_they_grew_or_were_made_at_once(run, trained):
    fewer = Run(trained(LAYOUT, "synthesize.pairs_per_defect=3"))
    made(fewer, order=-1)
    assert len(read_pair_rows(fewer.folder, "mesh")) == 9
    more = asked_for(fewer, pairs_per_defect=5)
    units = lot_of(more, "mesh").units
    assert [(unit.name, list(unit.missing)) for unit in units[:2]] == [
        ("bent 000000 to 000003", [3]),
        ("bent 000004 to 000004", [4]),
    ]
    made(more, order=-1)
    assert content(more.folder) == content(run.folder)
    again = asked_for(more, pairs_per_defect=2)
    assert made(again) == {}
    assert len(read_pair_rows(again.folder, "mesh")) == 15, "more than asked for stay"


def renamed(file):
    file.rename(file.with_name(file.name.replace("000000", "000076")))


@pytest.mark.parametrize("name", [f"{PLACE}.tar", f"{PLACE}.parquet", MARKER, MANIFEST])
@pytest.mark.parametrize("damage", [halved, flipped, deleted, renamed])
def test_whatever_happens_to_a_file_the_same_line_ends_with_the_same_bytes(run, name, damage):
    if damage is renamed and name == MANIFEST:
        pytest.skip("its name has no number")
    before = content(run.folder)
    damage(Path(run.folder.path(name)))
    told = made(run)
    assert content(run.folder) == before
    if damage is not deleted and name.startswith(PLACE):
        assert told, "what was mended is told"


def test_a_sampler_killed_within_an_archive_leaves_nothing_that_counts(run):
    before = content(run.folder)
    run.folder.delete(MARKER)
    run.folder.delete(f"{PLACE}.parquet")
    run.folder.delete(MANIFEST)
    run.folder.write_bytes("pairs/mesh/bent/.part-a", b"half a tar")
    lot = lot_of(run, "mesh")
    assert lot.damaged == {}
    assert [unit.name for unit in lot.units] == ["bent 000000 to 000003"]
    assert (lot.done, lot.total) == (11, 15)
    with pytest.raises(PairsError, match=r"not complete: .*submit synthesize again to go on"):
        lot.finish(run)
    made(run)
    assert content(run.folder) == before


def test_a_cut_tar_and_rows_without_their_tar_are_named_with_what_to_type(run):
    rows = read_pair_rows(run.folder, "mesh")
    halved(Path(run.folder.path(f"{PLACE}.tar")))
    with pytest.raises(DamagedError, match=rf"{PLACE}.tar is damaged \(it is cut short\); .*submit synthesize"):
        read_pair(run.folder, rows[3])
    deleted(Path(run.folder.path(f"{PLACE}.tar")))
    with pytest.raises(DamagedError, match=rf"{PLACE}.tar is damaged \(it is missing\); .*submit synthesize"):
        read_pair(run.folder, rows[0])
    assert lot_of(run, "mesh").damaged == {f"{PLACE}.parquet": "its tar is missing"}
    assert not run.folder.exists(f"{PLACE}.parquet"), "rows without pictures count for nothing"
    with pytest.raises(DamagedError, match=rf"{PLACE}.parquet is damaged \(it is missing\)"):
        read_pair_rows(run.folder, "mesh")


def test_verify_names_a_damaged_archive_and_repair_makes_it_again(run):
    before, place = content(run.folder), ("--run", "trained", "--storage", str(Path(run.folder.path()).parent))
    asked = asked_for(run, layout="mvtec", pairs_per_defect=2).config
    run.folder.write_json("config.json", asked.model_dump(mode="json"))

    def verify(*words):
        done = CliRunner().invoke(app, ["verify", *place, *words, "--json"])
        return done.exit_code, [fault["path"] for fault in json.loads(done.stdout)]

    assert verify() == (0, [])
    flipped(Path(run.folder.path(f"{PLACE}.tar")))
    halved(Path(run.folder.path("pairs/mesh/broken/000004.parquet")))
    marker = "synthesis/mesh/bent/000004.json"
    run.folder.write_json(marker, run.folder.read_json(marker) | {"empty": 1})
    assert verify() == (1, ["pairs/mesh/bent/000000.tar", "pairs/mesh/broken/000004.parquet", marker])
    assert verify("--repair") == (0, [])
    after = content(run.folder)
    assert [name for name in before if after[name] != before[name]] == []


def test_one_run_has_one_layout(run):
    refuse_two_layouts(run)
    other = asked_for(run, layout="mvtec")
    with pytest.raises(ValueError, match=r"lie in the layout 'webdataset'.*synthesize.layout=webdataset.*--run"):
        refuse_two_layouts(other)
    run.folder.write_bytes("pairs/mesh/test/bent/000000.png", b"")
    with pytest.raises(PairsError, match=r"1 files are of no archive, the first is pairs/mesh/test/bent/000000.png"):
        made(run)
    run.folder.write_bytes("pairs/mesh/metadata.jsonl", b"{}\n")
    with pytest.raises(PairsError, match="holds pairs in two layouts, mvtec and webdataset; remove it"):
        read_pair_rows(run.folder, "mesh")


def test_after_the_pairs_were_removed_the_layout_may_change_in_both_directions(run):
    for layout in ("mvtec", "webdataset"):
        run.folder.delete("pairs")
        changed = asked_for(run, layout=layout)
        refuse_two_layouts(changed)
        made(changed)
        assert layout_of(run.folder, "mesh") == layout
        assert made(changed) == {}


def test_a_storage_that_cannot_rename_is_told_in_one_line(run, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(os, "link", refused)
    for write in (run.folder.write_bytes, run.folder.create):
        with pytest.raises(ValueError, match=r"cannot rename and link files \(Function not implemented\).*s3://"):
            write("pairs/x", b"1")


def test_an_archive_is_never_too_large_and_holds_whole_batches(monkeypatch):
    monkeypatch.undo()
    assert archives.pairs_per_archive(200_000, 8) == 512
    assert archives.pairs_per_archive(1_000_000, 8) == 248
    assert archives.pairs_per_archive(1000, 96) == 480
    assert archives.pairs_per_archive(1000, 1024) == 1024
    with pytest.raises(ValueError, match=r"set synthesize\.shard_size to 5 at most"):
        archives.pairs_per_archive(50_000_000, 8)


def test_too_many_files_for_a_folder_are_warned_of(run):
    assert crowded(asked_for(run, layout="mvtec", pairs_per_defect=100_000)) == ""
    assert crowded(asked_for(run, pairs_per_defect=10**6)) == ""
    assert "synthesize.layout=webdataset" in crowded(asked_for(run, layout="mvtec", pairs_per_defect=100_001))


def test_an_archive_that_grows_may_be_tried_again_after_its_files_were_written_without_their_marker(run, monkeypatch):
    longer = asked_for(run, pairs_per_defect=6)
    (unit, *_) = [unit for unit in lot_of(longer, "mesh").units if unit.defect == "bent"]
    assert (unit.first, unit.held, unit.stop) == (4, 5, 6)
    maker = Maker(longer)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_json", lambda *_: (_ for _ in ()).throw(OSError("no answer")))
        with pytest.raises(OSError, match="no answer"):
            maker(unit)
    maker(unit)
    made(longer)
    assert [row["index"] for row in read_pair_rows(run.folder, "mesh") if row["defect"] == "bent"] == list(range(6))


def test_a_lost_marker_of_a_finished_archive_is_named_and_its_pairs_are_made_again_however_few_are_asked_for(run):
    before = content(run.folder)
    run.folder.delete("synthesis/mesh/bent/000004.json")
    assert damaged_files(run.folder, "mesh") == {"pairs/mesh/bent/000004.tar": "its marker is missing"}
    made(asked_for(run, pairs_per_defect=2))
    assert content(run.folder).keys() == before.keys()
    assert content(run.folder)["pairs/mesh/bent/000004.tar"] == before["pairs/mesh/bent/000004.tar"]


def test_an_exported_card_keeps_its_head(run, tmp_path):
    out = RunFolder.at(str(tmp_path / "out"))
    export(run.folder, out, "coco")
    _, head, text = out.read_bytes("README.md").decode().split("---\n", 2)
    assert "license" in head and "configs" not in head and text.strip()
