"""MPDD, painted metal parts: MVTec AD's layout, six categories, eleven defects.

Jezek et al., "Deep learning-based defect detection of metal parts", ICUMT 2021. Images are CC BY-NC-SA 4.0 and are
fetched by hand from the authors' page. Parts lie at any angle and several stand in one picture; masks are named
``000_mask.png``. What we decided: nothing of our own, the tree is read as ``mvtec`` reads it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dhdiff_ray.data.datasets.mvtec import MVTec, draw_tree
from dhdiff_ray.data.registry import dataset


@dataset("mpdd")
class MPDD(MVTec):
    """The MPDD tree."""

    licence = "CC BY-NC-SA 4.0"
    source = "https://github.com/stepanje/MPDD"

    def example(self, root: Path, seed: int = 0) -> None:
        """Two of its categories: ``bracket_black`` with two defects, ``tubes`` with one."""
        rng = np.random.default_rng(seed)
        draw_tree(root / "bracket_black", ("hole", "scratches"), rng)
        draw_tree(root / "tubes", ("anomalous",), rng)
