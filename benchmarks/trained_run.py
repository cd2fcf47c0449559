"""Opens a trained run for a benchmark that looks at its models, wherever its folder lies now."""

from pathlib import Path

from dhdiff_ray.config import Config
from dhdiff_ray.data.split import Split
from dhdiff_ray.on_ray.run import run_folder


def opened(storage, run):
    """Its configuration, with the storage it was found in, its folder and its split."""
    config = Config.model_validate_json((Path(storage) / run / "config.json").read_text())
    config = config.model_copy(update={"run": config.run.model_copy(update={"storage": storage})})
    folder = run_folder(config)
    return config, folder, Split.from_json(folder.read_json("split.json"))
