"""Pairs that do not agree are drawn again, with seeds that are told."""

from dataclasses import replace

import numpy as np
import pytest

from dhdiff_ray.detector.unet import to_bytes
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.redraw import drawn_again, make_usable
from dhdiff_ray.pairs.units import CategoryPairs, empty_masks, refuse_mixture, units_of
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.records import pair_seed
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts


@pytest.fixture
def ready(trained):
    run = Run(trained("synthesize.min_iou=0.5", "synthesize.redraws=2"))
    return run, DHDiffPipeline.from_pretrained(run.folder.path("models/mesh"))


def brightness(images, masks):
    return [float(image.mean() / 255) for image in images]


def tries(run, pipeline, requests):
    """Every try of a unit, made by hand."""
    made = []
    for attempt in range(3):
        seeds = [pair_seed(0, r.category, r.defect, r.index, attempt) for r in requests]
        again = [replace(r, seed=seed, attempt=attempt) for r, seed in zip(requests, seeds, strict=True)]
        made.append(make(again, pipeline, run.config, run.split.train))
    return made


def test_the_first_try_that_agrees_is_kept_else_the_best_of_all(ready):
    run, pipeline = ready
    requests = units_of(run, "mesh", {})[1][0].requests
    all_tries = tries(run, pipeline, requests)
    light = np.array([brightness([p.image for p in pairs], None) for pairs in all_tries])
    for threshold in (0.0, float(np.median(light)), 0.99):
        asked = run.config.synthesize.model_copy(update={"min_iou": threshold})
        config = run.config.model_copy(update={"synthesize": asked})
        kept = make_usable(requests, pipeline, config, run.split.train, brightness)
        assert len(kept) == len(requests)
        for at, judged in enumerate(kept):
            good = np.flatnonzero(light[:, at] >= threshold)
            wanted = good[0] if len(good) else light[:, at].argmax()
            assert judged.pair.request.attempt == wanted
            assert judged.iou == pytest.approx(light[wanted, at])
            assert np.array_equal(judged.pair.image, all_tries[wanted][at].image)


def test_the_first_try_is_the_request_itself(ready):
    run, _ = ready
    request = units_of(run, "mesh", {})[1][0].requests[0]
    assert drawn_again(request, run.config.run.seed, 0) == request


def test_a_row_tells_the_try_its_seed_and_its_agreement(ready):
    import torch

    from dhdiff_ray.detector.unet import build

    run, _ = ready
    torch.manual_seed(0)
    run.folder.write_bytes("detectors/mesh/real.safetensors", to_bytes(build("small", 4)))
    maker = Maker(run)
    requests, units = units_of(run, "mesh", {})
    for unit in units:
        maker(unit)
    CategoryPairs(model_facts(run.folder, "mesh"), requests, []).finish(run)
    rows = read_pair_rows(run.folder, "mesh")
    assert len(rows) == len(requests)
    for row in rows:
        assert row["seed"] == pair_seed(0, "mesh", row["defect"], row["index"], row["attempt"])
        assert 0 <= row["agreement"] <= 1
    assert any(row["attempt"] for row in rows), "an untrained judge agrees with nothing"


class Emptying:
    """A sampler that draws as it does, but loses the masks of some seeds."""

    def __init__(self, pipeline, lost):
        self.pipeline, self.lost, self.batches = pipeline, lost, []

    def __call__(self, **call):
        made = self.pipeline(**call)
        seeds = [generator.initial_seed() for generator in call["generator"]]
        self.batches.append(len(seeds))
        made.masks[:] = 1
        made.masks[[seed in self.lost for seed in seeds]] = 0
        return made


def seeds_of(request, attempts):
    return {drawn_again(request, 0, attempt).seed for attempt in attempts}


def test_pairs_with_an_empty_mask_are_drawn_again_and_no_others(trained):
    run = Run(trained("synthesize.redraws=2", "synthesize.shard_size=4"))
    requests = units_of(run, "mesh", {})[1][0].requests
    pipeline = DHDiffPipeline.from_pretrained(run.folder.path("models/mesh"))
    lost = seeds_of(requests[0], [0]) | seeds_of(requests[1], [0, 1]) | seeds_of(requests[2], range(9))
    sampler = Emptying(pipeline, lost)
    kept = make_usable(requests, sampler, run.config, run.split.train)
    assert [one.pair.request.attempt for one in kept][:4] == [1, 2, 0, 0]
    assert [one.empty for one in kept] == [False, False, True, *[False] * (len(requests) - 3)]
    assert set(sampler.batches) == {len(requests)}, "a batch is always as large as the unit"
    first = make(requests, Emptying(pipeline, lost), run.config, run.split.train)
    assert all(np.array_equal(a.pair.image, b.image) for a, b in zip(kept[2:], first[2:], strict=True))


def rows_without(config, lost_of):
    """The rows of a category whose sampler lost the masks of the seeds that ``lost_of`` names of its requests."""
    run = Run(config)
    requests, units = units_of(run, "mesh", {})
    maker = Maker(run)
    maker._pipelines["mesh"] = Emptying(maker._pipeline("mesh"), lost_of(requests))
    for unit in units:
        maker(unit)
    CategoryPairs(model_facts(run.folder, "mesh"), requests, []).finish(run)
    return read_pair_rows(run.folder, "mesh")


def test_without_redraws_the_first_try_is_kept_empty_or_not(trained):
    rows = rows_without(trained("synthesize.redraws=0"), lambda requests: {request.seed for request in requests})
    assert {(row["attempt"], row["empty"]) for row in rows} == {(0, True)}


def test_pairs_from_before_empty_ones_were_drawn_again_are_not_added_to(trained):
    run = Run(trained())
    folder, name = run.folder, "synthesis/mesh.json"
    refuse_mixture(run, model_facts(folder, "mesh"), any_there=False)
    folder.write_json(name, {key: value for key, value in folder.read_json(name).items() if key != "kept"})
    with pytest.raises(ValueError, match=r"made otherwise .*kept.* remove pairs/mesh first"):
        refuse_mixture(run, model_facts(folder, "mesh"), any_there=True)


def test_a_mask_that_stays_empty_is_named_in_its_row_and_counted_by_defect(trained):
    rows = rows_without(trained("synthesize.redraws=1"), lambda requests: seeds_of(requests[0], [0, 1]))
    assert [row.get("empty", False) for row in rows] == [True] + [False] * (len(rows) - 1)
    assert empty_masks(rows) == f"1 of {rows[0]['defect']}"
    assert empty_masks(rows[1:]) == ""
