import pickle
from pathlib import Path

import numpy as np
import pytest

from dhdiff_ray.data import registry
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import Dataset, DatasetError, dataset, dataset_names, open_dataset
from dhdiff_ray.data.split import make_split

LOADER = """
from dhdiff_ray.data.datasets.mvtec import MVTec
from dhdiff_ray.data.registry import dataset

@dataset({name!r})
class Mine(MVTec):
    '''A private copy.'''
    licence = "private"
    source = "here"
"""


@pytest.fixture(params=dataset_names())
def example(request, tmp_path) -> tuple[Dataset, Path]:
    loader = open_dataset(request.param)
    loader.example(tmp_path / "data", seed=1)
    return loader, tmp_path / "data"


def test_contract_every_loader_lists_its_example_whole(example):
    loader, root = example
    samples = loader.scan(root)
    keys = [sample.key for sample in samples]
    assert keys == sorted(set(keys))
    assert {sample.category for sample in samples} == set(loader.categories(root))
    assert {sample.subset for sample in samples} <= {"train", "validation", "test"}
    for sample in samples:
        assert Path(sample.image) == root / sample.key
        assert sample.is_good == (sample.mask is None)
    assert pickle.loads(pickle.dumps(samples)) == samples
    assert loader.name in dataset_names()
    assert loader.licence
    assert loader.source


def test_contract_every_loader_gives_readable_images_and_nonempty_masks(example):
    loader, root = example
    kept, images, masks = read_many(loader.scan(root), 32, False, pytest.fail)
    assert images.shape == (len(kept), 32, 32, 3)
    for sample, mask in zip(kept, masks, strict=True):
        assert mask.any() != sample.is_good


def test_contract_every_loaders_example_can_be_split(example):
    loader, root = example
    split = make_split(loader.scan(root), fraction=0.5, seed=0, root=root)
    assert split.defects()
    for category, defect in split.defects():
        for side in (split.train, split.test):
            assert any(sample.category == category and sample.defect == defect for sample in side)


def test_contract_every_loader_chooses_categories_and_suggests_the_nearest(example):
    loader, root = example
    first = loader.categories(root)[0]
    assert {sample.category for sample in loader.scan(root, [first])} == {first}
    with pytest.raises(DatasetError, match=f"did you mean '{first}'"):
        loader.scan(root, [first + "x"])


def test_contract_every_loader_names_a_folder_that_is_not_there(example):
    loader, root = example
    with pytest.raises(DatasetError, match="nowhere"):
        loader.categories(root / "nowhere")


def test_contract_every_example_is_the_same_for_the_same_seed(example, tmp_path):
    loader, root = example
    loader.example(tmp_path / "again", seed=1)
    _, first, _ = read_many(loader.scan(root), 32, False, pytest.fail)
    _, again, _ = read_many(loader.scan(tmp_path / "again"), 32, False, pytest.fail)
    assert np.array_equal(first, again)


def test_an_unknown_dataset_gets_the_nearest_name():
    with pytest.raises(DatasetError, match="did you mean 'mvtec'"):
        open_dataset("mvtek")


def test_a_python_file_is_a_dataset_and_may_be_opened_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    file = tmp_path / "mine.py"
    file.write_text(LOADER.format(name="mine"))
    assert open_dataset(str(file)).licence == "private"
    assert open_dataset(str(file)).name == "mine"
    assert "mine" in dataset_names()


def test_a_file_that_takes_a_shipped_name_or_registers_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    (tmp_path / "thief.py").write_text(LOADER.format(name="mvtec"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    for file, words in (("thief.py", "is taken"), ("empty.py", "registers 0"), ("gone.py", "no dataset file")):
        with pytest.raises(DatasetError, match=words):
            open_dataset(str(tmp_path / file))


def test_the_decorator_returns_the_class_it_registers(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    class Plain(Dataset):
        pass

    assert dataset("plain")(Plain) is Plain
    assert Plain.name == "plain"
