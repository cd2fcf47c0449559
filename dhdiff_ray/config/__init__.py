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

__all__ = [
    "AblationConfig",
    "AblationRow",
    "Config",
    "DataConfig",
    "DetectConfig",
    "ModelConfig",
    "RunConfig",
    "ScoreConfig",
    "ServeConfig",
    "SynthesizeConfig",
    "TrainConfig",
]
