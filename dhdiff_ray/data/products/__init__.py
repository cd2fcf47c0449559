"""The drawn products: one file each, with ``DEFECTS`` and ``draw`` (see ``data/drawing.py``)."""

from __future__ import annotations

from dhdiff_ray.data.drawing import Artist
from dhdiff_ray.data.products import board, bottle_top, cable, capsule, mesh, pill, screw, washer
from dhdiff_ray.data.products.textures import brushed_metal, cloth, concrete, leather, tiles, wood

PRODUCTS = {
    "board": board,
    "bottle_top": bottle_top,
    "brushed_metal": brushed_metal,
    "cable": cable,
    "capsule": capsule,
    "cloth": cloth,
    "concrete": concrete,
    "leather": leather,
    "mesh": mesh,
    "pill": pill,
    "screw": screw,
    "tiles": tiles,
    "washer": washer,
    "wood": wood,
}
DEFECTS: dict[str, tuple[str, ...]] = {name: product.DEFECTS for name, product in PRODUCTS.items()}
ARTISTS: dict[str, Artist] = {name: product.draw for name, product in PRODUCTS.items()}
DEMO = ("capsule", "mesh")
"""What is drawn where nothing else is asked for; no foundation has seen them."""
