"""How each peer computes IC-LPIPS, as rules that can be chosen by name (section IV-C names none).

The figures that the papers print side by side are not from one rule. Read from the published code: AnomalyDiffusion's
``cal_ic_lpips.py`` (DualAnoDiff and MAGIC ship copies), CDC's ``feat_cluster.py``, DFMGAN's ``metrics/lpips.py`` and
SeaS's ``metrics_lpips.py``. What we decided: every draw is seeded and over sorted names; centres are the anomalies that
were trained on unless the rule says otherwise; where a rule has a bug that changes the number, it is kept and named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dhdiff_ray.config import ScoreConfig

Backbone = Literal["vgg", "alex", "squeeze"]


@dataclass(frozen=True)
class Profile:
    """One rule."""

    name: str
    backbone: Backbone
    cap: int | None
    """Most members of one cluster that are compared; None compares all."""
    draw: Literal["seeded", "first", "all"]
    """Which members of a larger cluster: a seeded draw, or the first by name."""
    small: Literal["drop", "zero"]
    """What a cluster of fewer than two images is worth: nothing, or 0 in the mean."""
    raw_centres: bool = False
    """The bug of DFMGAN and SeaS: real images enter the assignment at 0..255, where the network expects -1..1."""
    nearest_centres: bool = False
    """Real images are resized by nearest neighbour."""
    centres: Literal["train", "all"] = "train"
    """Which real images of the defect are centres."""
    rule: str = ""
    """In words, with the bugs."""


_PUBLISHED = Profile("anomalydiffusion", "vgg", 50, "seeded", "drop")
_RAW = Profile("dfmgan", "alex", 200, "first", "zero", raw_centres=True)
_RULES = {
    _PUBLISHED: "a tie goes to the later centre; at most 50 of a cluster; clusters under 2 dropped (there the mean of "
    "an empty tensor, NaN); there the draw has no seed and files come unsorted, here both are fixed",
    replace(_PUBLISHED, name="full", cap=None, draw="all"): "as anomalydiffusion, but every member is compared",
    replace(_PUBLISHED, name="cdc"): "as anomalydiffusion; CDC does not ship how it assigns images to its centres, so "
    "the nearest is taken; a second run of its script counts the closest.png and farthest.png it wrote, ours none",
    replace(_RAW, centres="all"): "clpips: centres are all real images of the defect; the first 200 of a cluster; "
    "clusters under 2 count as 0 (clpips_rz leaves them out). Bug kept: real images enter the assignment at 0..255, "
    "not -1..1",
    replace(_RAW, name="seas", backbone="vgg", cap=140, nearest_centres=True): "DFMGAN's rule with VGG and the first "
    "140; real images resized by nearest neighbour. Bug kept: real images enter the assignment at 0..255, not -1..1",
}
PROFILES = {profile.name: replace(profile, rule=rule) for profile, rule in _RULES.items()}


def profile_of(config: ScoreConfig) -> Profile:
    """The profile that a configuration names, with its own cluster size if it sets one.

    Raises:
        ValueError: a cluster size of one, which leaves no pair.
    """
    if config.cluster_size == 1:
        raise ValueError("score.cluster_size=1 leaves no pair to compare; give 2 or more, or 0 for the profile's own")
    profile = PROFILES[config.profile]
    if config.cluster_size and profile.cap:
        return replace(profile, cap=config.cluster_size)
    return profile
