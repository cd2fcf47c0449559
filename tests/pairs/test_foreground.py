import numpy as np

from dhdiff_ray.pairs.foreground import foreground

SIDE = 64


def disc(radius, y=32, x=30):
    ys, xs = np.indices((SIDE, SIDE))
    return np.hypot(ys - y, xs - x) <= radius


def on_a_table(product, colours):
    """A product on a table that is darker to the right, with sensor noise."""
    light = np.linspace(140, 90, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    noise = np.random.default_rng(0).normal(0, 2, (SIDE, SIDE, 3))
    return np.clip(np.where(product[..., None], colours, light) + noise, 0, 255).astype(np.uint8)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_a_product_of_two_colours_is_found_whole_on_an_uneven_table():
    halves = np.where(np.arange(SIDE)[None, :, None] < 30, [250.0, 240, 220], [170.0, 40, 20])
    assert overlap(foreground(on_a_table(disc(16), halves)), disc(16)) > 0.9


def test_through_a_large_hole_the_background_is_seen_and_a_small_spot_is_filled():
    ring, spotted = disc(22) & ~disc(10), disc(22) & ~disc(2)
    assert overlap(foreground(on_a_table(ring, 230.0)), ring) > 0.85
    assert foreground(on_a_table(spotted, 230.0))[32, 30]


def test_a_texture_fills_the_image_and_so_does_what_the_edge_cuts():
    grain = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    weave = np.where((np.indices((SIDE, SIDE)).sum(0) // 6 % 2)[..., None], 200, 60).repeat(3, 2).astype(np.uint8)
    band = on_a_table(np.broadcast_to(np.abs(np.arange(SIDE)[:, None] - 32) < 10, (SIDE, SIDE)), 230.0)
    for image in (grain, weave, band, np.full((SIDE, SIDE, 3), 90, np.uint8)):
        assert foreground(image).all()
