import pytest

from dhdiff_ray.data import registry
from dhdiff_ray.data.registry import Dataset, DatasetError, dataset, dataset_names, open_dataset

LOADER = """
from dhdiff_ray.data.datasets.mvtec import MVTec
from dhdiff_ray.data.registry import dataset

@dataset({name!r})
class Mine(MVTec):
    '''A private copy.'''
    licence = "private"
    source = "here"
"""


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
