"""The networks behind the scores: class probabilities, pooled features, perceptual features (section IV-C).

``open_classifier`` and ``open_perceiver`` give the published networks from files on this machine (``published.py``),
small real ones (``small.py``) or random ones (``standin.py``) that need no file. The last two are stand-ins: their
figures compare runs of this tool, never papers, so their metrics carry another name.
"""

from __future__ import annotations

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features.base import Classifier, Perceiver
from dhdiff_ray.metrics.profiles import profile_of


def open_classifier(config: ScoreConfig) -> Classifier:
    """The classifier that a configuration names.

    Raises:
        ValueError: its file is missing, is another network's, or holds more than tensors.
    """
    if config.features == "standin":
        from dhdiff_ray.metrics.features.standin import StandinFeatures

        return StandinFeatures()
    if config.features == "small":
        from dhdiff_ray.metrics.features.small import SmallClassifier

        return SmallClassifier(config.weights_dir)
    from dhdiff_ray.metrics.features.published import Inception

    return Inception(config)


def open_perceiver(config: ScoreConfig) -> Perceiver:
    """The perceptual network that a configuration names; by default the one its profile uses.

    Raises:
        ValueError: as above.
    """
    if config.features == "standin":
        from dhdiff_ray.metrics.features.standin import StandinFeatures

        return StandinFeatures()
    if config.features == "small":
        from dhdiff_ray.metrics.features.small import SmallPerceiver

        return SmallPerceiver(config.weights_dir)
    from dhdiff_ray.metrics.features.published import Lpips

    return Lpips(config, config.backbone or profile_of(config).backbone)


def check_files(config: ScoreConfig) -> None:
    """Say what is missing before anything is computed, without loading it.

    Raises:
        ValueError: every missing file is named, with the ways out.
    """
    if config.features == "inception":
        from dhdiff_ray.metrics.features.weights import find

        wanted = {"is": "inception", "kid": "inception"}
        perceptual = config.backbone or profile_of(config).backbone
        find(config, dict.fromkeys(wanted.get(metric, perceptual) for metric in config.metrics if metric != "masks"))
    elif config.features == "small":
        from dhdiff_ray.metrics.features.weights import find_small

        find_small(config.weights_dir)
