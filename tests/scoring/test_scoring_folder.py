"""Folders as others write them, scored in one call, and every mistake told in one line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.cli.app import app
from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.data.images import ImageError
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.scoring.folder import score_folder
from dhdiff_ray.scoring.made import find_made

STANDIN = ScoreConfig(features="standin", splits=2, seeds=2)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    open_dataset("mvtec").example(root)
    return root


@pytest.fixture
def made(real, tmp_path):
    """AnomalyDiffusion's layout: <category>/<defect>/image and mask, JPEG."""
    for category, defect in (("bottle", "broken_large"), ("grid", "bent")):
        for kind, source in (("image", "test"), ("mask", "ground_truth")):
            folder = tmp_path / "made" / category / defect / kind
            folder.mkdir(parents=True)
            for index, path in enumerate(sorted((real / category / source / defect).iterdir())):
                Image.open(path).convert("L" if kind == "mask" else "RGB").save(folder / f"{index}.jpg")
    return tmp_path / "made"


def test_every_layout_is_found_by_itself(real, made):
    def told(root):
        return [(m.category, m.defect, m.layout, len(m.images), len(m.masks)) for m in find_made(root)]

    theirs = [("bottle", "broken_large", "image-mask", 4, 4), ("grid", "bent", "image-mask", 4, 4)]
    assert told(made) == theirs
    assert told(made / "bottle") == told(made / "bottle" / "broken_large") == theirs[:1]
    assert told(real)[0] == ("bottle", "broken_large", "mvtec", 4, 4)
    assert told(real / "grid") == [("grid", "bent", "mvtec", 4, 4)]
    plain = made / "grid" / "bent" / "image"
    assert told(plain) == [("bent", "image", "plain folder", 4, 0)]
    assert len(find_made(plain, masks=plain.parent / "mask")[0].masks) == 4


def test_another_tools_output_is_scored_with_every_number_and_its_scale(real, made):
    result = score_folder(made, STANDIN, real=real, cut="half")
    rows = {(r["metric"], r["level"], r["category"]): r for r in result["scores"]}
    for metric in ("is_standin", "ic_lpips_standin", "originality_standin", "kid_standin", "mask_area", "mask_empty"):
        assert rows[metric, "run", None]["n"] == 8
    # The first half of the "made" images are the training images, stored as JPEG once more.
    assert rows["originality_standin", "defect", "bottle"]["conditions"]["copies"] == 2
    assert rows["mask_area", "defect", "grid"]["value"] == pytest.approx(
        rows["mask_area", "defect", "grid"]["reference"] / 2
    )
    assert result["conditions"]["layout"] == "image-mask"
    assert result["left_out"] == {}


def test_without_real_images_what_needs_them_is_left_out_and_said(made):
    result = score_folder(made / "grid", STANDIN)
    assert {"ic_lpips", "originality", "kid"} == result["left_out"].keys()
    assert {r["metric"] for r in result["scores"]} > {"is_standin", "mask_empty"}


def test_a_plain_folder_goes_with_a_plain_folder_of_real_images(real, made):
    result = score_folder(made / "grid" / "bent" / "image", STANDIN, real=real / "grid" / "test" / "bent")
    assert "masks" in result["left_out"]
    assert any(r["metric"] == "ic_lpips_standin" and r["value"] is not None for r in result["scores"])


def test_mistakes_are_told_in_one_line(real, made, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match="holds no images in a layout that is known"):
        score_folder(empty, STANDIN)
    with pytest.raises(ImageError, match="no folder"):
        score_folder(tmp_path / "nowhere", STANDIN)
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(made / "grid" / "bent" / "image" / "0.jpg", one)
    with pytest.raises(ValueError, match=r"1 images cannot be cut into 2 splits.*score\.splits=1"):
        score_folder(one, STANDIN)
    with pytest.raises(ValueError, match="1 real images, too few to take a third of; pass --centres all"):
        score_folder(one, STANDIN, real=one)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(one / "other.png")
    with pytest.raises(ImageError, match=r"different sizes.*9 x 9.*--resolution"):
        score_folder(one, STANDIN)
    (one / "other.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"other\.png cannot be read"):
        score_folder(one, STANDIN)
    shutil.rmtree(made / "bottle" / "broken_large" / "mask")
    (made / "bottle" / "broken_large").rename(made / "bottle" / "scratch")
    with pytest.raises(ValueError, match=r"bottle/scratch has no real images.*there are: bottle/broken_large"):
        score_folder(made, STANDIN, real=real)
    with pytest.raises(ValueError, match="none of the categories cable"):
        score_folder(made, STANDIN, categories=["cable"])


def test_the_command_prints_one_document_and_warns_of_another_number_of_images(real, made, tmp_path):
    from typer.testing import CliRunner

    words = ["score", str(made), "--real", str(real), "--features", "standin", "--set", "score.splits=1", "--centres"]
    first = CliRunner().invoke(app, [*words, "half", "--output", str(tmp_path / "a.json"), "--json"])
    assert first.exit_code == 0
    assert json.loads(first.stdout)["scores"] == json.loads((tmp_path / "a.json").read_text())["scores"]
    (made / "bottle" / "broken_large" / "image" / "3.jpg").unlink()
    second = CliRunner().invoke(app, [*words, "half", "--against", str(tmp_path / "a.json"), "--json"])
    document = json.loads(second.stdout)
    assert any("is_standin: 3 images against 4" in warning for warning in document["warnings"])
    assert document["compared"]
    table = CliRunner().invoke(app, [*words, "half", "--against", str(tmp_path / "a.json")])
    assert "kid_standin" in table.stdout
    assert "look like copies" in table.stderr
    wrong = CliRunner().invoke(app, [*words, "half", "--against", str(tmp_path / "b.json")])
    assert "--against takes" in str(wrong.exception)
