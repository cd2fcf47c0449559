import json
from dataclasses import replace
from pathlib import Path

import pytest

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.registry import Reading, open_dataset
from dhdiff_ray.data.split import Split, SplitError, make_split, split_as
from dhdiff_ray.records import Sample


def samples_of(groups: dict[str, list[str | None]], goods: int = 2) -> list[Sample]:
    """Samples of one category: defect -> the group of each of its images."""
    found = []
    for subset in ("train", "test"):
        found += [("good", subset, index, None) for index in range(goods)]
    found += [(defect, "test", i, group) for defect, parts in groups.items() for i, group in enumerate(parts)]
    keys = [(f"c/{subset}/{defect}/{i:03d}.png", defect, subset, group) for defect, subset, i, group in found]
    return [Sample(k, "c", d, s, f"/d/{k}", None if d == "good" else f"/d/m/{k}", group) for k, d, s, group in keys]


def shares(split: Split, defect: str) -> tuple[int, int]:
    train, test = (sum(sample.defect == defect for sample in side) for side in (split.train, split.test))
    return train, test


def test_half_of_each_defect_trains_and_normals_keep_their_side():
    split = make_split(samples_of({"crack": [None] * 10, "dent": [None] * 7}), fraction=0.5, seed=0, root="/d")
    assert shares(split, "crack") == (5, 5)
    assert shares(split, "dent") == (3, 4)
    assert all(s.subset == "train" for s in split.train if s.is_good)
    assert all(s.subset == "test" for s in split.test if s.is_good)
    assert not set(split.train) & set(split.test)
    assert len(split.train) + len(split.test) == 21


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.3, 3), (0.99, 9)])
def test_both_sides_get_at_least_one_anomaly(fraction, expected):
    split = make_split(samples_of({"crack": [None] * 10}), fraction=fraction, seed=0, root="/d")
    assert shares(split, "crack") == (expected, 10 - expected)


def test_the_seed_alone_decides_which_anomalies_train():
    samples = samples_of({"crack": [None] * 20})
    first, again = (make_split(order, fraction=0.5, seed=1, root="/d") for order in (samples, samples[::-1]))
    assert first == again
    assert make_split(samples, fraction=0.5, seed=2, root="/d") != first


def test_a_group_never_lies_on_both_sides_even_across_defects_and_normals():
    groups = ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"]
    samples = samples_of({"crack": groups, "dent": ["a", "e", "f", "c", "b", None, None]})
    samples = [replace(s, group="f") if s.key == "c/train/good/001.png" else s for s in samples]
    samples = [replace(s, group="d") if s.key == "c/test/good/000.png" else s for s in samples]
    for seed in range(20):
        split = make_split(samples, fraction=0.5, seed=seed, root="/d")
        sides = [{s.group for s in side if s.group} for side in (split.train, split.test)]
        assert not sides[0] & sides[1]
        assert "f" in sides[0]
        assert "d" in sides[1]
        assert shares(split, "crack")[0] in (5, 6)


def test_one_part_on_which_all_images_of_a_defect_lie_cannot_be_split():
    with pytest.raises(SplitError, match=r"c/crack: 3 images of 1 physical parts"):
        make_split(samples_of({"crack": ["a"] * 3}), fraction=0.5, seed=0, root="/d")


def test_copies_of_one_image_never_lie_on_both_sides_even_through_a_group():
    samples = samples_of({"crack": [None] * 6 + ["a", "a"], "dent": [None] * 4}, goods=3)
    hashes = {f"{s.key}": s.key for s in samples}
    copies = ("c/test/crack/000.png", "c/test/crack/003.png", "c/test/crack/006.png", "c/test/dent/001.png")
    hashes |= dict.fromkeys(copies, "one")
    hashes |= dict.fromkeys(("c/train/good/001.png", "c/test/good/002.png"), "another")
    together = {*copies, "c/test/crack/007.png"}
    for seed in range(20):
        split = make_split(samples, fraction=0.5, seed=seed, root="/d", hashes=hashes)
        sides = [{s.key for s in side} for side in (split.train, split.test)]
        assert together <= sides[0] or together <= sides[1]
        assert {"c/train/good/001.png", "c/test/good/002.png"} <= sides[0]
        assert set(split.train) | set(split.test) == set(samples), "samples stay as the dataset gave them"


def test_hashes_of_files_that_all_differ_change_no_split():
    samples = samples_of({"crack": [None] * 9, "dent": ["a", "a", "b", None]})
    split, known = (
        make_split(samples, fraction=0.5, seed=3, root="/d", hashes=h) for h in (None, {s.key: s.key for s in samples})
    )
    assert (known.train, known.test) == (split.train, split.test)


def test_missing_normals_or_anomalies_are_named():
    with pytest.raises(SplitError, match="no normal images"):
        make_split(samples_of({"crack": [None] * 4}, goods=0), fraction=0.5, seed=0, root="/d")
    with pytest.raises(SplitError, match="no anomalies"):
        make_split(samples_of({}), fraction=0.5, seed=0, root="/d")


def real_split(root: Path) -> Split:
    open_dataset("mvtec").example(root)
    return make_split(open_dataset("mvtec").scan(root), fraction=0.5, seed=0, root=root)


def test_a_split_survives_json_with_the_hash_of_every_file(tmp_path):
    split = real_split(tmp_path)
    written = json.loads(json.dumps(split.to_json()))
    again = Split.from_json(written)
    assert (again.train, again.test, again.root) == (split.train, split.test, split.root)
    assert len(again.hashes) == len(list(tmp_path.rglob("*.png")))
    assert again.to_json() == written
    again.check(tmp_path)


def test_changed_and_missing_files_are_named(tmp_path):
    split = Split.from_json(real_split(tmp_path).to_json())
    (tmp_path / "bottle/test/broken_large/000.png").write_bytes(b"other")
    (tmp_path / "grid/ground_truth/bent/001_mask.png").unlink()
    with pytest.raises(SplitError, match=r"missing grid/\S*001_mask.png; changed bottle/test/broken_large/000.png"):
        split.check(tmp_path)
    with pytest.raises(SplitError, match="no category 'cable'"):
        split.category("cable")
    bottle = split.category("bottle")
    assert bottle.categories == ["bottle"]
    assert all(file.startswith("bottle/") for file in bottle.hashes)


def test_hashes_can_be_left_out(tmp_path):
    written = real_split(tmp_path).to_json(hashes=False)
    assert "sha256" not in written["train"][0]
    Split.from_json(written).check(tmp_path)


@pytest.mark.parametrize(
    ("mode", "expected"), [("fraction", (4, 5)), ("half", (4, 5)), ("third", (3, 6)), ("kshot", (2, 7))]
)
def test_each_mode_trains_on_as_many_anomalies_as_it_says(mode, expected):
    samples = samples_of({"crack": [None] * 9})
    split = make_split(samples, fraction=0.5, seed=0, root="/d", mode=mode, shots=2)
    assert shares(split, "crack") == expected
    assert not split.test_holds_training_images


def test_full_tests_on_all_anomalies_and_says_that_it_holds_training_images():
    split = make_split(samples_of({"crack": [None] * 8}), fraction=0.5, seed=0, root="/d", mode="full")
    assert shares(split, "crack") == (4, 8)
    assert split.test_holds_training_images
    assert split.to_json(hashes=False)["test_holds_training_images"] is True


def test_few_shots_of_grouped_images_never_part_a_group():
    samples = samples_of({"crack": ["a", "a", "b", "b", "c", "c"]})
    split = make_split(samples, fraction=0.5, seed=0, root="/d", mode="kshot", shots=1)
    assert shares(split, "crack") == (2, 4)


def test_sides_that_the_data_gives_are_kept_and_one_sided_ones_refused():
    samples = samples_of({"crack": [None] * 4})
    given = [replace(s, subset="train") if s.key.endswith(("crack/000.png", "crack/001.png")) else s for s in samples]
    split = make_split(given, fraction=0.5, seed=0, root="/d", mode="given")
    assert [s.key for s in split.train if not s.is_good] == ["c/test/crack/000.png", "c/test/crack/001.png"]
    with pytest.raises(SplitError, match="puts all 4 images on the side 'test'"):
        make_split(samples, fraction=0.5, seed=0, root="/d", mode="given")


def test_normal_images_without_a_side_are_drawn_four_to_one():
    samples = [replace(s, subset="") for s in samples_of({"crack": [None] * 4}, goods=10)]
    split = make_split(samples, fraction=0.5, seed=0, root="/d")
    assert [sum(s.is_good for s in side) for side in (split.train, split.test)] == [16, 4]


def test_a_split_refuses_settings_other_than_its_own(tmp_path):
    open_dataset("mvtec").example(tmp_path)
    data = DataConfig(root=str(tmp_path), split="third")
    split = Split.from_json(split_as(data, 3, open_dataset("mvtec").scan(tmp_path)).to_json(hashes=False))
    split.check_settings(data, 3)
    split.check_settings(data.model_copy(update={"train_fraction": 0.3}))  # third does not look at it
    with pytest.raises(SplitError, match=r"data\.split = 'third', not 'half'"):
        split.check_settings(data.model_copy(update={"split": "half"}))
    with pytest.raises(SplitError, match=r"run\.seed = 3, not 4"):
        split.check_settings(data, 4)


@pytest.mark.parametrize("several", ["combined", "each"])
@pytest.mark.parametrize("name", ["loco", "visa"])
def test_masks_of_many_files_and_single_values_survive_the_split_file(name, several, tmp_path):
    reading = Reading(several_defects=several)
    open_dataset(name).example(tmp_path)
    samples = open_dataset(name, reading).scan(tmp_path)
    split = make_split(samples, fraction=0.5, seed=0, root=tmp_path)
    again = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert (again.train, again.test) == (split.train, split.test)
    assert again.digest == Split.from_json(again.to_json()).digest
    for side, other in ((again.train, again.test), (again.test, again.train)):
        assert not {s.image for s in side} & {s.image for s in other}
    victim = next(s for s in (*split.train, *split.test) if s.masks)
    Path(victim.masks[-1]).write_bytes(b"other")
    with pytest.raises(SplitError, match="changed"):
        again.check(tmp_path)
