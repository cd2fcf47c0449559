"""What sPRO asks to be found: the annotated defects of a dataset at the size a detector sees (section IV-D, Table VII).

The publisher of MVTec LOCO evaluates at the images' own size. What we decided: our maps are square and small, so a
defect shrinks as its mask does and its saturation area with it: the same share of it counts as all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dhdiff_ray.data.images import shrink_mask
from dhdiff_ray.data.registry import Dataset
from dhdiff_ray.metrics.pro import Region
from dhdiff_ray.records import Sample


def saturated_regions(loader: Dataset, root: Path, samples: Sequence[Sample], resolution: int) -> list[Region]:
    """Every annotated defect of test images with its saturation area; none where the data has no such areas.

    Args:
        loader: of the dataset.
        root: its folder.
        samples: the test images, one sample each, in the order of their maps.
        resolution: side of the maps in pixels.
    """
    regions = []
    for index, sample in enumerate(samples):
        for one in loader.instances(root, sample):
            small = shrink_mask(one.pixels, resolution) > 0
            share = one.saturation / float(one.pixels.sum())
            regions.append(Region(index, small, share * float(small.sum())))
    return regions
