import json

import pytest

from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.registry import DatasetError, open_dataset

SMALL = {"resolution": 24, "defects_per_type": 2, "train_good": 2, "test_good": 1}


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


def test_a_drawing_is_a_function_of_its_seed_and_each_file_of_its_own_place(tmp_path):
    generate(tmp_path / "a", seed=3, **SMALL)
    generate(tmp_path / "b", seed=3, **{**SMALL, "defects_per_type": 1, "train_good": 1})
    generate(tmp_path / "c", seed=4, **SMALL)
    first, fewer, other = (contents(tmp_path / name) for name in "abc")
    assert len(first) == 2 * (2 + 1 + 3 * 2 * 2)
    assert len(set(first.values())) == len(first)
    assert fewer.items() < first.items()
    assert not set(first.values()) & {other[name] for name in other if "ground_truth" not in name}


def test_parameters_are_written_down_and_a_chosen_category_alone_is_drawn(tmp_path):
    generate(tmp_path, seed=0, categories=["capsule"], **SMALL)
    assert open_dataset("procedural").categories(tmp_path) == ["capsule"]
    assert json.loads((tmp_path / "procedural.json").read_text()) == {"seed": 0, "categories": ["capsule"], **SMALL}


def test_a_folder_without_drawing_says_how_to_make_one(tmp_path):
    with pytest.raises(DatasetError, match=f"dhdiff-ray data make --root {tmp_path}"):
        open_dataset("procedural").scan(tmp_path)


def test_other_content_is_never_drawn_over(tmp_path):
    generate(tmp_path / "a", seed=0, categories=["mesh"], **SMALL)
    generate(tmp_path / "a", seed=0, categories=["mesh"], **SMALL)
    with pytest.raises(DatasetError, match="other parameters"):
        generate(tmp_path / "a", seed=1, categories=["mesh"], **SMALL)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match="other files"):
        generate(tmp_path / "b", **SMALL)


def test_an_unknown_category_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(DatasetError, match="did you mean 'mesh'"):
        generate(tmp_path, categories=["mash"], **SMALL)
