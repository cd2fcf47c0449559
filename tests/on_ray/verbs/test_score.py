"""Scores on Ray: the same numbers however the images are cut, and an oracle that detect can use again."""

from collections import Counter

import pytest

from dhdiff_ray.on_ray.verbs import detect, score
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.run import Run


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_sharding_gives_the_same_scores(paired, size):
    run = Run(paired("data.categories=['capsule']"))
    rows = {"capsule": read_pair_rows(run.folder, "capsule")}

    def scored(units):
        scorer = score.Scorer(run)
        whole = score.merged(units, [scorer(unit) for unit in units])
        return {(unit.defect, one.metric): one for unit in whole for one in scorer(unit)}

    whole, parts = score.shards(rows), score.shards(rows, size)
    assert len(whole) == 3
    once, again = scored(whole), scored(parts[::-1])
    assert once.keys() == again.keys()
    kinds = {"is", "ic_lpips", "originality", "kid"}
    masks = {"mask_area", "mask_empty", "mask_overlap"}
    assert {metric for _, metric in once} > {f"{kind}_standin" for kind in kinds} | masks
    for key, one in once.items():
        for ours, theirs in ((one.value, again[key].value), (one.reference, again[key].reference)):
            assert theirs == (ours if ours is None else pytest.approx(ours, rel=1e-9))
    assert all(one.reference is not None for (_, metric), one in once.items() if metric == "originality_standin")


@pytest.mark.parametrize("workers", [2, 6, 12])
def test_clusters_compared_by_many_workers_give_the_same_score(paired, workers):
    run = Run(paired("data.categories=['capsule']", "score.metrics=['ic_lpips']"))
    rows = {"capsule": read_pair_rows(run.folder, "capsule")}
    scorer = score.Scorer(run)
    units = score.shards(rows)
    defects = score.merged(units, [scorer(unit) for unit in units])
    parts = score.comparisons(defects, workers)
    assert len(parts) == (0 if workers == 2 else workers), "three defects; what all workers have anyway is not cut"
    compared = {}
    for part in parts[::-1]:
        compared.setdefault((part.category, part.defect), []).append(scorer(part))
    for unit in defects:
        given = score.with_spreads(unit, compared)
        assert ("spreads" in given.states) == bool(parts)
        assert scorer(given) == scorer(unit)


def test_too_few_pairs_are_refused_before_anything_is_computed(paired):
    config = paired("score.splits=4")
    rows = {"mesh": read_pair_rows(Run(config).folder, "mesh")}
    with pytest.raises(ValueError, match=r"mesh/bent has 3 pairs.*--set score.splits=3"):
        score.refuse_what_cannot_be_scored(config.score, rows)


def test_missing_weights_are_refused_with_their_names(paired, tmp_path):
    config = paired("score.features=inception", f'score.weights_dir="{tmp_path}"')
    rows = {"mesh": read_pair_rows(Run(config).folder, "mesh")}
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth"):
        score.refuse_what_cannot_be_scored(config.score, rows)


@pytest.mark.ray
def test_a_run_is_scored_then_checked_with_the_same_localiser(two_cores, paired):
    config = paired()
    folder = Run(config).folder
    assert score.main(config) == 0
    found = folder.read_json("scores.json")
    levels = Counter((row["metric"], row["level"]) for row in found["scores"])
    for metric in ("is_standin", "ic_lpips_standin"):
        assert [levels[metric, level] for level in ("defect", "category", "run")] == [6, 2, 1]
    (whole,) = (r for r in found["scores"] if (r["metric"], r["level"]) == ("is_standin", "run"))
    assert whole["n"] == 18
    assert whole["value"] >= 1
    assert {"config_digest", "split_digest", "weights", "splits", "profile"} <= whole["conditions"].keys()
    for category in ("capsule", "mesh"):
        aligned = found["pair_alignment"][category]
        assert {"iou", "ap", "nonempty", "n", "oracle", "reference", "drawn_again"} == aligned.keys()
        assert 0 <= aligned["drawn_again"] <= 1
        assert aligned["reference"]["n"] == 6, "the oracle is asked the same of the held-out real defects"
        assert aligned["n"] == 9
        assert 0 <= aligned["oracle"]["pixel_ap"] <= 1

    weights = folder.read_bytes("detectors/mesh/real.safetensors")
    known = folder.read_json("detectors/mesh/real.json")
    folder.write_json("detectors/mesh/real.json", {**known, "facts": {"n_train": 99}})  # only who reads it can know
    assert detect.main(config) == 0
    found = folder.read_json("detection.json")
    assert folder.read_bytes("detectors/mesh/real.safetensors") == weights
    assert found["mesh"]["real"]["n_train"] == 99
    assert found["mesh"]["synthetic"]["n_pairs"] == 6, "as many as there are real ones to train on"
    assert found["mesh"]["real"]["n_defect"] == found["mesh"]["synthetic"]["n_defect"] == 6
    ratio = found["mesh"]["synthetic"]["pixel_ap"] / found["mesh"]["real"]["pixel_ap"]
    assert found["mesh"]["ratio_pixel_ap"] == pytest.approx(ratio)
    assert found["conditions"]["steps"] == 4
    assert "by_seed" not in found["mesh"]["real"]

    asked = {"seeds": 2, "baselines": ("real", "real_synthetic", "real_pasted")}
    twice = config.model_copy(update={"detect": config.detect.model_copy(update=asked)})
    assert detect.main(twice) == 0
    again = folder.read_json("detection.json")
    assert again["mesh"]["real"]["by_seed"][0]["pixel_ap"] == found["mesh"]["real"]["pixel_ap"]
    assert len(again["mesh"]["real_pasted"]["by_seed"]) == 2
    lines = [e["message"] for e in read_events(folder) if e["event"] == "verdict"]
    assert any("with pasted defects" in line and line.endswith("(2 seeds)") for line in lines)
    told = {(e["verb"], e["event"]) for e in read_events(folder)}
    assert {("score", "metric"), ("score", "progress"), ("detect", "metric"), ("detect", "progress")} <= told
