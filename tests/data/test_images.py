import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.data.images import ImageError, read_image, read_many, read_mask, shrink_mask
from dhdiff_ray.records import Sample


def sample_of(tmp_path, image, mask=None):
    Image.fromarray(image).save(tmp_path / "a.png")
    if mask is not None:
        Image.fromarray(mask).save(tmp_path / "a_mask.png")
    mask_path = str(tmp_path / "a_mask.png") if mask is not None else None
    return Sample("a.png", "c", "crack" if mask_path else "good", "test", str(tmp_path / "a.png"), mask_path)


def test_grey_and_16_bit_images_become_rgb_of_the_same_brightness(tmp_path):
    grey = np.full((20, 30), 128, dtype=np.uint8)
    assert read_image(sample_of(tmp_path, grey), 16).tolist() == np.full((16, 16, 3), 128).tolist()
    deep = grey.astype(np.uint16) * 257
    assert read_image(sample_of(tmp_path, deep), 16).tolist() == np.full((16, 16, 3), 128).tolist()


def test_a_single_pixel_of_value_one_survives_shrinking(tmp_path):
    mask = np.zeros((250, 250), dtype=np.uint8)
    mask[123, 77] = 1
    small = read_mask(sample_of(tmp_path, np.zeros((250, 250, 3), np.uint8), mask), 64)
    assert set(np.unique(small)) == {0, 255}
    assert 1 <= (small > 0).sum() <= 4
    assert small[123 * 64 // 250, 77 * 64 // 250] == 255


@pytest.mark.parametrize("shape", [(100, 64), (37, 250), (5, 7), (64, 64)])
def test_a_shrunk_mask_pixel_is_set_exactly_when_it_touches_a_defect(shape):
    mask = np.random.default_rng(0).random(shape) < 0.05
    small = shrink_mask(mask, 13) > 0
    for i in range(13):
        for j in range(13):
            rows = slice(i * shape[0] // 13, max(-(-(i + 1) * shape[0] // 13), i * shape[0] // 13 + 1))
            columns = slice(j * shape[1] // 13, max(-(-(j + 1) * shape[1] // 13), j * shape[1] // 13 + 1))
            assert small[i, j] == mask[rows, columns].any()


def test_a_normal_image_has_a_zero_mask(tmp_path):
    assert not read_mask(sample_of(tmp_path, np.zeros((8, 8, 3), np.uint8)), 16).any()


def test_a_mask_of_another_size_is_refused_by_name(tmp_path):
    sample = sample_of(tmp_path, np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8), np.uint8))
    with pytest.raises(ImageError, match=r"a_mask\.png"):
        read_mask(sample, 8)


def test_a_corrupt_image_is_named_and_left_out_only_on_request(tmp_path):
    good = sample_of(tmp_path, np.zeros((8, 8, 3), np.uint8))
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "a.png").read_bytes()[:40])
    bad = Sample("broken.png", "c", "good", "train", str(broken))
    missing = Sample("gone.png", "c", "good", "train", str(tmp_path / "gone.png"))
    for sample in (bad, missing):
        with pytest.raises(ImageError, match=sample.key):
            read_many([good, sample], 8, False, pytest.fail)
    told = []
    kept, images, masks = read_many([bad, good, missing], 8, True, told.append)
    assert kept == [good]
    assert images.shape == (1, 8, 8, 3)
    assert masks.shape == (1, 8, 8)
    assert ["broken.png" in told[0], "gone.png" in told[1]] == [True, True]
    with pytest.raises(ImageError, match="none of 1"):
        read_many([bad], 8, True, told.append)
