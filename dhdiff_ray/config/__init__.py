"""The configuration: every knob by part, how it is loaded, and the presets."""

from dhdiff_ray.config.schema import (
    AblationConfig,
    AblationRow,
    Config,
    DataConfig,
    DetectConfig,
    ModelConfig,
    RunConfig,
    ScoreConfig,
    ServeConfig,
    SynthesizeConfig,
    TrainConfig,
)
from dhdiff_ray.config.sources import FOUNDATION_NAME, Source

__all__ = [
    "FOUNDATION_NAME",
    "AblationConfig",
    "AblationRow",
    "Config",
    "DataConfig",
    "DetectConfig",
    "ModelConfig",
    "RunConfig",
    "ScoreConfig",
    "ServeConfig",
    "Source",
    "SynthesizeConfig",
    "TrainConfig",
]
