"""Every dataset goes from its folder through split and images into one optimiser step."""

import os
from pathlib import Path

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.registry import configured, dataset_names, open_dataset
from dhdiff_ray.data.split import Split, split_as
from dhdiff_ray.data.verify import verify
from dhdiff_ray.training.build import build, build_source
from dhdiff_ray.training.loop import PlainEngine, fit

SETS = (
    "data.resolution=32",
    "data.grid=4",
    "train.window=16",
    "model.haar_levels=1",
    "model.channels=[16,16]",
    "model.attention_blocks=[false,true]",
    "model.dda_encoder=[0,1]",
    "model.dda_decoder=[0]",
    "model.ssm_encoder=[0,1]",
    "model.ssm_decoder=[0]",
    "model.backbone=''",
    "model.text_width=16",
    "train.global_batch_size=2",
    "train.steps=1",
)


def one_step(dataset, root, *sets):
    """Verify, split, read and train; returns the loss."""
    words = (f"data.dataset={dataset}", f'data.root="{root}"', *sets)
    config = load_config(preset="tiny", sets=(*SETS, *words)).config
    findings, _ = verify(config.data)
    assert [f for f in findings if f.level == "error"] == []
    split = split_as(config.data, 0, configured(config.data).scan(local_root(root)))
    own = Split.from_json(split.to_json()).category(split.categories[0])
    samples, images, masks = read_many(own.train, 32, False, pytest.fail)
    parts = build(config, samples, images)
    source = build_source(parts, config, samples, images, masks)
    losses = []
    fit(
        PlainEngine(parts.objective, config.train),
        source,
        config.train,
        average=None,
        on_step=lambda done, log: losses.append(log["loss"]),
    )
    return losses


@pytest.mark.parametrize("name", dataset_names())
def test_the_example_of_every_dataset_trains_a_step(name, tmp_path):
    open_dataset(name).example(tmp_path / "d")
    (loss,) = one_step(name, tmp_path / "d")
    assert 0 < loss < 100


def test_one_sample_per_defect_trains_a_step(tmp_path):
    open_dataset("loco").example(tmp_path / "d")
    (loss,) = one_step("loco", tmp_path / "d", "data.several_defects=each", "data.split=third")
    assert 0 < loss < 100


def test_real_magnetic_tiles_train_a_step_as_they_lie_there():
    beside = [Path(os.environ["DHDIFF_SHARED"])] if "DHDIFF_SHARED" in os.environ else []
    beside += [parent / "shared" for parent in Path(__file__).resolve().parents]
    root = next((p / "data" / "mtd" for p in beside if (p / "data" / "mtd").is_dir()), None)
    if root is None:
        pytest.skip("no shared/data/mtd beside the checkout; set DHDIFF_SHARED to the folder that holds data/mtd")
    (loss,) = one_step("mvtec", root)
    assert 0 < loss < 100
