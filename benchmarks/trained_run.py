"""Opens a trained run for a benchmark that looks at its models, wherever its folder lies now."""

import argparse
from pathlib import Path

import torch

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.published import open_model
from dhdiff_ray.run.run import Run


def opened(storage, run):
    """Its configuration, with the storage and name it was found by, its folder and its split."""
    config = Config.model_validate_json((Path(storage) / run / "config.json").read_text())
    config = config.model_copy(update={"run": config.run.model_copy(update={"storage": storage, "name": run})})
    found = Run(config)
    return found.config, found.folder, found.split


def arguments():
    """STORAGE RUN [CATEGORY] [--model FOLDER]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("run")
    parser.add_argument("category", nargs="?")
    parser.add_argument("--model", help="a model folder other than the run's")
    return parser


def one_category(asked):
    """What the arguments name: configuration, split, category (the first, if none) and sampler, on one thread."""
    torch.set_num_threads(1)
    config, folder, split = opened(asked.storage, asked.run)
    category = asked.category or split.categories[0]
    pipeline = open_model(Path(asked.model or folder.local(f"models/{category}")), config)
    pipeline.set_progress_bar_config(disable=True)
    return config, split, category, pipeline
