import numpy as np
from PIL import Image

from dhdiff_ray.detector.peers import peers_masks
from dhdiff_ray.records import Sample


def test_only_whole_pixels_are_strict_and_any_touch_is_soft(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[20:41, 20:41] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    samples = [
        Sample("a", "c", "d", "test", "a.png", str(tmp_path / "m.png")),
        Sample("b", "c", "good", "test", "b.png"),
    ]
    strict, soft = peers_masks(samples, 32)
    assert strict[0].astype(bool).sum() == 10 * 10
    assert soft[0].astype(bool).sum() == 11 * 11
    assert not strict[1].any() and not soft[1].any()
