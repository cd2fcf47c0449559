"""Pairs on Ray: the same bytes on any number of workers, after any restart, for any number asked for."""

import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest

from dhdiff_ray.model.precision import knows_bf16
from dhdiff_ray.on_ray.verbs import detect, synthesize
from dhdiff_ray.on_ray.verbs.synthesize import Maker, main
from dhdiff_ray.pairs.intact import existing
from dhdiff_ray.pairs.lots import lot_of
from dhdiff_ray.pairs.make import open_pipeline
from dhdiff_ray.pairs.units import Unit, refuse_mixture, units_of
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.run import Run

DEFECTS = 6


def digests(folder, count=None):
    """Hash of every made file, or of those of the first pairs of each defect."""
    names = [n for n in folder.files("pairs") if n.endswith(".png") and "/good/" not in n]
    if count is not None:
        names = [n for n in names if int(n.split("/")[-1][:6]) < count]
    return {name: hashlib.sha256(folder.read_bytes(name)).hexdigest() for name in names}


@pytest.fixture
def ready(trained):
    return Run(trained())


def test_units_are_whole_and_say_what_is_missing(ready):
    wanted, units = units_of(ready, "mesh", {"bent": {0: True, 1: True, 2: False}})
    assert len(wanted) == 9
    assert {len(unit.requests) for unit in units} == {2}, "a last, shorter unit would be another batch"
    assert [[r.index for r in u.missing] for u in units if u.requests[0].defect == "bent"] == [[2]]


def test_pairs_of_a_longer_earlier_run_are_wanted_too(ready):
    there = {"bent": dict.fromkeys(range(5), True)}
    wanted, units = units_of(ready, "mesh", there)
    assert sum(r.defect == "bent" for r in wanted) == 5
    assert not [u for u in units if u.requests[0].defect == "bent"]


def test_asking_for_more_keeps_every_byte_of_what_is_there(trained, ready):
    folder, maker = ready.folder, Maker(ready)
    for unit in units_of(ready, "capsule", {})[1]:
        maker(unit)
    before = digests(folder)
    more = asked_for(ready, pairs_per_defect=4)
    for unit in units_of(more, "capsule", existing(folder, "capsule"))[1]:
        assert [r.index for r in unit.missing] == [3]
        maker(unit)
    fresh = digests(folder)
    assert len(fresh) == 3 * 4 * 2
    assert before.items() < fresh.items()
    folder.delete("pairs")
    for unit in units_of(more, "capsule", {})[1]:
        maker(unit)
    assert digests(folder) == fresh


def test_a_lone_mask_is_no_pair(ready):
    folder, maker = ready.folder, Maker(ready)
    unit = units_of(ready, "capsule", {})[1][0]
    maker(unit)
    before = digests(folder)
    folder.delete(f"pairs/capsule/test/{unit.missing[0].defect}/000001.png")
    assert existing(folder, "capsule")[unit.missing[0].defect] == {0: True, 1: False}
    maker(unit)
    assert digests(folder) == before


def test_pairs_of_other_settings_are_never_mixed(ready):
    facts = ready.folder.read_json("models/mesh/dhdiff.json")
    refuse_mixture(ready, facts, any_there=False)
    refuse_mixture(ready, facts, any_there=True)
    other = asked_for(ready, guidance=2.5)
    with pytest.raises(ValueError, match=r"guidance = 1.5, now 2.5\); ask for the same, or remove pairs/mesh"):
        refuse_mixture(other, facts, any_there=True)


def test_pairs_that_are_older_than_a_setting_count_as_drawn_with_its_default(ready):
    folder = ready.folder
    facts = folder.read_json("models/mesh/dhdiff.json")
    refuse_mixture(ready, facts, any_there=False)
    written = folder.read_json("synthesis/mesh.json")
    folder.write_json("synthesis/mesh.json", {k: v for k, v in written.items() if k not in ("precision", "compile")})
    refuse_mixture(ready, facts, any_there=True)
    with pytest.raises(ValueError, match="precision = 'fp32', now 'bf16'"):
        refuse_mixture(asked_for(ready, precision="bf16"), facts, any_there=True)


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_sampler_runs_its_model_in_the_precision_that_is_asked_for_and_the_user_hears_where_that_is_slow(
    ready, asked
):
    config = asked_for(ready, precision=asked).config
    assert open_pipeline(config, ready.folder.local("models/mesh"), 0).precision == asked
    assert bool(synthesize.slow_precision(config)) == (asked == "bf16" and not knows_bf16())


def asked_for(run, **fields):
    return Run(run.config.model_copy(update={"synthesize": run.config.synthesize.model_copy(update=fields)}))


class Faulty(Maker):
    """Fails on one unit, and the first time it meets another takes its process with it."""

    def __call__(self, unit: Unit) -> float:
        if unit.category == "mesh" and unit.missing[0].index == 2 and unit.requests[0].defect == "bent":
            raise OSError(28, "No space left on device")
        if unit.category == "mesh" and unit.missing[0].index == 0 and unit.requests[0].defect == "broken":
            os.kill(os.getpid(), signal.SIGKILL)  # always
        mark = Path(self.run.folder.path("died"))
        if unit.category == "capsule" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(unit)


@pytest.mark.ray
def test_workers_deaths_and_failed_units_change_no_byte(two_cores, trained, monkeypatch):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    config = trained("synthesize.workers=2")
    folder = Run(config).folder
    with monkeypatch.context() as patch:
        patch.setattr(synthesize, "Maker", Faulty)
        assert main(config) == 1
    assert folder.exists("died")
    failed = [e for e in read_events(folder) if e["event"] == "failed"]
    assert sorted((e["category"], e["message"]) for e in failed) == [
        ("mesh", "bent 000002 to 000003: OSError: [Errno 28] No space left on device"),
        ("mesh", "broken 000000 to 000001: its process died 3 times; out of memory? See the logs of its worker"),
    ]
    two = digests(folder)
    assert len(two) == (DEFECTS * 3 - 1 - 2) * 2
    assert len(read_pair_rows(folder, "capsule")) == 9, "the category that is whole is finished"

    folder.delete("pairs/mesh")
    fewer = trained("synthesize.workers=1", "synthesize.pairs_per_defect=2")
    assert main(fewer) == 0
    assert len(read_pair_rows(folder, "mesh")) == 6
    assert len(read_pair_rows(folder, "capsule")) == 9, "more than asked for stay"
    one = digests(folder)
    assert {k: v for k, v in one.items() if k in two} == {k: v for k, v in two.items() if k in one}
    assert len(one.keys() & two.keys()) > DEFECTS * 2, "what one worker makes is what two make"
    told = [e for e in read_events(folder) if e.get("category") == "capsule"]
    assert (told[-1]["event"], told[-1]["done"], told[-1]["total"]) == ("done", 9, 9)


@pytest.mark.ray
def test_archives_of_pairs_that_start_from_their_references_are_the_same_from_two_workers_and_from_none(
    two_cores, trained
):
    sets = ("synthesize.start=reference", "synthesize.strength=[0.2,0.9]", "synthesize.steps=6")
    sets += ("synthesize.layout=webdataset",)
    run = Run(trained(*sets, "synthesize.workers=2"))
    assert main(run.config) == 0
    two = {name: run.folder.read_bytes(name) for name in run.folder.files("pairs")}
    assert [n for n in two if "/mesh/bent/" in n] == [f"pairs/mesh/bent/000000.{end}" for end in ("parquet", "tar")]
    rows = read_pair_rows(run.folder, "mesh")
    assert len({row["strength"] for row in rows}) == len(rows) == 9
    assert all(row["start"] == "reference" and row["placement_seed"] == row["seed"] for row in rows)
    run.folder.delete("pairs")
    for category in ("capsule", "mesh"):
        lot = lot_of(run, category)
        for unit in lot.units:
            Maker(run)(unit)
        lot.finish(run)
    assert {name: two[name] for name in run.folder.files("pairs")} == {
        name: run.folder.read_bytes(name) for name in two if not name.endswith("README.md")
    }


@pytest.mark.ray
def test_damage_of_one_category_stops_no_other_and_is_named(two_cores, paired):
    config = paired()
    folder = Run(config).folder
    before = digests(folder)
    marker = folder.read_bytes("models/capsule/dhdiff.json")
    folder.write_bytes("models/capsule/dhdiff.json", marker[:20])
    folder.delete("pairs/mesh/ground_truth/bent/000001_mask.png")
    assert main(config) == 1
    (failed,) = [e for e in read_events(folder) if e["event"] == "failed"]
    assert failed["category"] == "capsule"
    assert "models/capsule/dhdiff.json is damaged" in failed["message"]
    (told,) = [e["message"] for e in read_events(folder) if e["event"] == "warning"]
    assert "mesh: 1 damaged files, the first is pairs/mesh/test/bent/000001.png (its mask is missing)" in told
    assert digests(folder) == before

    folder.write_bytes("models/capsule/dhdiff.json", marker)
    weights = Path(folder.path("models/capsule/unet/diffusion_pytorch_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    folder.delete("pairs/capsule/test")
    assert main(config) == 1
    failed = [e for e in read_events(folder) if e["event"] == "failed"][1:]
    assert [e["category"] for e in failed] == ["capsule"], "its units fail alike, and are told once"
    assert "the model of 'capsule' in" in failed[0]["message"]

    rows = folder.read_bytes("pairs/capsule/metadata.jsonl")
    folder.write_bytes("pairs/capsule/metadata.jsonl", rows[: len(rows) // 2])
    assert detect.main(config) == 1
    last = [e for e in read_events(folder) if e["verb"] == "detect"]
    assert [e["category"] for e in last if e["event"] == "failed"] == ["capsule"]
    assert [e["category"] for e in last if e["event"] == "metric"] == ["mesh"]
