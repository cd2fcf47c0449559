"""What a factory can do without a generator: paste defects onto normal images, or look for what is not normal.

The scale for section IV-D: a generator that does not beat these is not worth its GPUs. CutPaste: Li et al., CVPR 2021;
Perlin-shaped defects: DRAEM, Zavrtanik et al., ICCV 2021. What we decided: DRAEM's textures are pictures that we do not
have, so a defect's inside comes from another place of another normal image with its colours changed; the image that is
pasted on and the pasted one are drawn from the seed. With real defects at hand they are pasted themselves, as strong
as that can be made (``pairs/placement.py``): the yardstick of made pairs.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from dhdiff_ray.pairs.placement import Placing, place


def cut_paste(normals: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal images with a rectangle from elsewhere pasted in.

    Args:
        normals: uint8 (m, h, w, 3).
        count: images to make.
        seed: draws all of them.

    Returns:
        Images uint8 (count, h, w, 3) and masks uint8 (count, h, w) of 0 and 255. The rectangle covers 2 to 15 % of the
        image, one side up to 3.3 times the other, its colours scaled by up to a tenth, as in the paper.
    """
    draw = np.random.default_rng([seed, 1])
    height, width = normals.shape[1:3]
    images, masks = _canvas(normals, count, draw)
    for image, mask in zip(images, masks, strict=True):
        area, ratio = draw.uniform(0.02, 0.15) * height * width, np.exp(draw.uniform(-np.log(3.3), np.log(3.3)))
        tall = int(np.clip(round((area * ratio) ** 0.5), 1, height - 1))
        wide = int(np.clip(round((area / ratio) ** 0.5), 1, width - 1))
        (top, left), (y, x) = (
            (int(draw.integers(0, height - tall + 1)), int(draw.integers(0, width - wide + 1))) for _ in range(2)
        )
        source = normals[int(draw.integers(len(normals)))]
        patch = source[top : top + tall, left : left + wide] * draw.uniform(0.9, 1.1, 3)
        image[y : y + tall, x : x + wide] = np.clip(patch, 0, 255).astype(np.uint8)
        mask[y : y + tall, x : x + wide] = 255
    return images, masks


def perlin_paste(normals: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal images with blobs of Perlin noise filled from elsewhere; as ``cut_paste``, with DRAEM's shapes.

    Scales are 2^0 to 2^5 cells per side, the threshold is 0.5, the blend's opacity 0.2 to 1, as in DRAEM.
    """
    draw = np.random.default_rng([seed, 2])
    side = normals.shape[1:3]
    images, masks = _canvas(normals, count, draw)
    for image, mask in zip(images, masks, strict=True):
        inside = perlin(side, 2 ** int(draw.integers(0, 6)), 2 ** int(draw.integers(0, 6)), draw) > 0.5
        if not inside.any():
            continue  # DRAEM too leaves such an image normal
        source = normals[int(draw.integers(len(normals)))].astype(np.float32)
        source = np.roll(source, tuple(draw.integers(0, side)), axis=(0, 1))[:: int(draw.choice([-1, 1]))]
        source = np.clip((source - 127.5) * draw.uniform(0.5, 1.5) + 127.5 + draw.uniform(-60, 60, 3), 0, 255)
        opacity = draw.uniform(0.2, 1.0)
        image[inside] = (opacity * source[inside] + (1 - opacity) * image[inside]).astype(np.uint8)
        mask[inside] = 255
    return images, masks


def paste_defects(
    images: np.ndarray, masks: np.ndarray, normals: np.ndarray, seed: int, mirror: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Each real defect cut out by its mask and placed on a normal image: feathered, warped, of matched brightness.

    Args:
        images: of real defects, uint8 (n, h, w, 3); one may stand here several times.
        masks: of 0 and 255, (n, h, w); images whose mask is empty are left out.
        normals: uint8 (m, h, w, 3).
        seed: draws bases, places and warps.
        mirror: whether defects may be mirrored, as made ones are with ``train.flips``.

    Returns:
        Images uint8 (k, h, w, 3) and masks uint8 (k, h, w) of 0 and 255.

    Raises:
        ValueError: no normal images, or no mask that is not empty.
    """
    present = np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1))
    if not len(present):
        raise ValueError("there is no real defect with a mask to paste; leave pasted out of detect.baselines")
    bases, _ = _canvas(normals, len(present), np.random.default_rng([seed, 6]))
    how, seeds = Placing(mirror=mirror), np.random.default_rng([seed, 7]).integers(2**32, size=len(present))
    placed = [
        place(base, images[at], masks[at], int(one), how) for base, at, one in zip(bases, present, seeds, strict=True)
    ]
    return np.stack([one.image for one in placed]), np.stack([one.mask for one in placed])


def perlin(side: tuple[int, ...], rows: int, columns: int, draw: np.random.Generator) -> np.ndarray:
    """Gradient noise (h, w), about -1 to 1, with that many cells along each axis."""
    angles = draw.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    gradients = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    y, x = (np.arange(n) / n * cells for n, cells in zip(side, (rows, columns), strict=True))
    top, left = y.astype(int), x.astype(int)
    fy, fx = (y - top)[:, None], (x - left)[None, :]

    def corner(down: int, right: int) -> np.ndarray:
        slopes = gradients[(top + down)[:, None], (left + right)[None, :]]
        return slopes[..., 0] * (fy - down) + slopes[..., 1] * (fx - right)

    wy, wx = (t**3 * (t * (t * 6 - 15) + 10) for t in (fy, fx))
    upper = corner(0, 0) * (1 - wx) + corner(0, 1) * wx
    lower = corner(1, 0) * (1 - wx) + corner(1, 1) * wx
    return 2**0.5 * (upper * (1 - wy) + lower * wy)


class NormalOnly:
    """The simplest detector that sees no defect: how unusual a pixel is among the normal images at its place.

    A Gaussian per pixel and colour, both image and fit blurred a little, so that a shift of a pixel is no defect.

    Args:
        normals: uint8 (m, h, w, 3), m of at least 2.

    Raises:
        ValueError: fewer than two normal images.
    """

    def __init__(self, normals: np.ndarray) -> None:
        if len(normals) < 2:
            raise ValueError("the normal-only baseline needs two normal training images or more")
        smooth = self._blur(normals)
        self.mean = smooth.mean(axis=0)
        # Half of the average spread is added everywhere: a place that never changes is no infinite surprise.
        spread = smooth.std(axis=0)
        self.scale = spread + spread.mean() / 2 + 1

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Unusualness, float32 (n, h, w), without an upper end, of images uint8 (n, h, w, 3)."""
        deviations = ((self._blur(images) - self.mean) / self.scale) ** 2
        return np.sqrt(deviations.sum(axis=-1)).astype(np.float32)

    @staticmethod
    def _blur(images: np.ndarray) -> np.ndarray:
        sigma = max(images.shape[1] / 64, 0.5)
        return gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))


def _canvas(normals: np.ndarray, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if not len(normals):
        raise ValueError("defects are pasted onto normal training images, and there are none")
    chosen = normals[draw.integers(len(normals), size=count)].copy()
    return chosen, np.zeros(chosen.shape[:3], np.uint8)
