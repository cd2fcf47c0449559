"""Every loader in the registry, and one that a user wrote, keeps every promise."""

import pytest

from dhdiff_ray.data import registry
from dhdiff_ray.data.contract import PROMISES, PromiseError, check_loader
from dhdiff_ray.data.registry import dataset_names, open_dataset

MINE = """
from pathlib import Path

import numpy as np

from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.layout import images_in
from dhdiff_ray.data.registry import Dataset, DatasetError, choose_categories, dataset
from dhdiff_ray.data.encode import save_png
from dhdiff_ray.records import GOOD, Sample


@dataset("weld_seams")
class WeldSeams(Dataset):
    '''fine/*.png, porous/*.png, and porous/masks/*.png.'''

    licence = "in-house"
    source = "line 4"

    def categories(self, root):
        if not (root / "fine").is_dir():
            raise DatasetError(f"{root} has no folder 'fine'")
        return ["weld"]

    def scan(self, root, categories=()):
        root = root.absolute()
        choose_categories(self.categories(root), categories, root)
        found = []
        for at, image in enumerate(images_in(root / "fine", root)):
            subset = "test" if at % 3 == 0 else "train"
            found.append(Sample(f"fine/{image.name}", "weld", GOOD, subset, str(image)))
        for image in images_in(root / "porous", root):
            mask = root / "porous" / "masks" / image.name
            if mask.is_file():
                found.append(Sample(f"porous/{image.name}", "weld", "porous", "test", str(image), str(mask)))
            else:
                self.leave_out(f"{image} has no mask; expected {mask}")
        return sorted(found, key=lambda sample: sample.key)

    def example(self, root, seed=0):
        rng = np.random.default_rng(seed)
        for at in range(4):
            save_png(root / "fine" / f"{at}.png", noise(rng))
            image, mask = spoiled(rng)
            save_png(root / "porous" / f"{at}.png", image)
            save_png(root / "porous" / "masks" / f"{at}.png", mask)
"""


@pytest.fixture(scope="module")
def own_file(tmp_path_factory):
    """A loader in a file of a user's, registered for this module only."""
    file = tmp_path_factory.mktemp("mine") / "weld_seams.py"
    file.write_text(MINE)
    before = dict(registry._registered)
    yield str(file)
    registry._registered.clear()
    registry._registered.update(before)


@pytest.fixture(scope="module", params=[*dataset_names(), "a user's own file"])
def loader_and_root(request, own_file, tmp_path_factory):
    loader = open_dataset(own_file if request.param == "a user's own file" else request.param)
    root = tmp_path_factory.mktemp("example") / "data"
    loader.example(root, seed=1)
    return loader, root


@pytest.mark.parametrize("promise", PROMISES)
def test_every_loader_keeps_the_promise(loader_and_root, promise, tmp_path):
    PROMISES[promise](*loader_and_root, tmp_path)


def test_a_loader_that_breaks_a_promise_is_told_which(own_file, tmp_path):
    loader = open_dataset(own_file)

    class Careless(type(loader)):
        licence = ""

        def scan(self, root, categories=()):
            return [sample for sample in super().scan(root, categories) if sample.is_good]

    found = check_loader(Careless(), tmp_path)
    assert "has a defect" in found["names_normal_images_and_defects"]
    assert "licence" in found["lists_the_example_whole"]
    assert found["gives_readable_images_and_nonempty_masks"] == ""


def test_a_promise_names_what_was_expected(tmp_path):
    class Deaf(type(open_dataset("mvtec"))):
        def categories(self, root):
            return []

    with pytest.raises(PromiseError, match="nothing was raised"):
        PROMISES["names_a_folder_that_is_not_there"](Deaf(), tmp_path, tmp_path)
