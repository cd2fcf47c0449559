"""Pairs that start from their reference: placed and noised by their own seeds."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.make import OwnPictures, make, prepare
from dhdiff_ray.pairs.redraw import drawn_again
from dhdiff_ray.pairs.start import start_told, strength_of
from dhdiff_ray.pairs.units import units_of
from dhdiff_ray.run.run import Run


@pytest.fixture
def ready(trained):
    run = Run(trained("synthesize.start=reference", "synthesize.strength=[0.2,0.9]", "synthesize.steps=6"))
    return run, units_of(run, "mesh", {})[1]


def test_each_pair_has_its_own_strength_and_every_try_its_own_place(ready):
    run, units = ready
    requests = [r for unit in units for r in unit.requests]
    strengths = [strength_of(r, run.config.synthesize) for r in requests]
    assert len(set(strengths)) == len(requests)
    assert all(0.2 <= s <= 0.9 for s in strengths)
    one, again = requests[0], drawn_again(requests[0], run.config.run.seed, 1)
    first, same, other = (prepare([r], run.config, run.split.train).call["placed"] for r in (one, one, again))
    assert (first == same).all()
    assert first.shape != other.shape or (first != other).any()
    told = start_told(again, run.config.synthesize)
    assert told["placement_seed"] == again.seed
    assert start_told(again, run.config.synthesize.model_copy(update={"start": "noise"})) == {}


def test_a_pair_is_the_same_in_any_company(ready):
    run, units = ready
    pipeline = DHDiffPipeline.from_pretrained(run.folder.path("models/mesh"))
    a, b, c = [r for unit in units for r in unit.requests][:3]
    (one, _), (_, same) = (make(rs, pipeline, run.config, run.split.train) for rs in ((a, b), (c, a)))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.mask, same.mask)


def test_the_window_holds_what_is_placed_where_a_user_draws_it(ready):
    run, units = ready
    drawing = np.zeros((32, 32), np.uint8)
    drawing[24:28, 24:28] = 255
    request = units[0].requests[0]
    one = prepare([request], run.config, run.split.train, [OwnPictures(control=drawing)])
    rows, columns = one.cuts[0]
    assert (rows.stop, columns.stop) == (32, 32)
    assert one.call["placed_mask"].any()
    assert not (one.call["placed_mask"] * (1 - one.call["raw_mask"])).any(), "the defect lies in its region"


def test_a_reference_without_a_mask_is_one_clear_line(ready, tmp_path):
    run, units = ready
    Image.new("L", (32, 32)).save(tmp_path / "empty.png")
    request = units[0].requests[0]
    samples = [
        replace(s, mask=str(tmp_path / "empty.png"), more_masks=()) if s.key == request.reference else s
        for s in run.split.train
    ]
    with pytest.raises(ValueError, match=rf"mask of {request.reference} is empty at 32 pixels.*synthesize.start"):
        prepare([request], run.config, samples)


def test_units_made_by_one_sampler_or_another_have_the_same_bytes_and_rows_tell_the_start(ready):
    run, units = ready
    folder = run.folder

    def bytes_of(order):
        folder.delete("pairs")
        for unit in order:
            Maker(run)(unit)
        return {name: folder.read_bytes(name) for name in folder.files("pairs")}

    first = bytes_of(units[:2])
    assert bytes_of(reversed(units[:2])) == first
    row = folder.read_json(f"synthesis/mesh/{units[0].requests[0].defect}/{units[0].requests[0].name}.json")[0]
    assert row["start"] == "reference"
    assert row["placement_seed"] == row["seed"]
