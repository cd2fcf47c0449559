"""One really trained, really tiny run, and a private cluster of two cores."""

import os
import shutil
from pathlib import Path

import pytest

SETS = (
    "data.dataset=procedural",
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
    "model.text_width=16",
    "train.global_batch_size=4",
    "train.steps=4",
    "train.checkpoint_every=2",
    "synthesize.pairs_per_defect=3",
    "synthesize.shard_size=2",
    "synthesize.steps=2",
    "synthesize.guidance=1.5",
    "score.cluster_size=4",
    "detect.steps=4",
    "detect.batch_size=4",
    "detect.channels=4",
)
CATEGORIES = ("capsule", "mesh")


def load(storage, root, run, *sets):
    from dhdiff_ray.config_layers import load_config

    places = (f'run.storage="{storage}"', f'data.root="{root}"', f"run.name={run}")
    return load_config(preset="tiny", sets=(*SETS, *places, *sets)).config


@pytest.fixture(scope="session")
def load_run():
    """load(storage, root, run, *sets) -> the tiny configuration, for tests that share a run."""
    return load


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    from dhdiff_ray.data.datasets.procedural import generate

    root = tmp_path_factory.mktemp("images") / "procedural"
    generate(root, resolution=32, defects_per_type=4, train_good=3, test_good=2)
    return root


@pytest.fixture
def configure(images, tmp_path):
    """The tiny configuration of a new run: configure(run, *sets)."""
    return lambda run, *sets: load(tmp_path, images, run, *sets)


@pytest.fixture(scope="session")
def trained_once(images, tmp_path_factory):
    """A run whose two models have seen two steps, trained in this process."""
    from dhdiff_ray.data.images import read_many
    from dhdiff_ray.data.registry import open_dataset
    from dhdiff_ray.data.split import make_split
    from dhdiff_ray.storage import RunFolder
    from dhdiff_ray.training.batches import BatchSource
    from dhdiff_ray.training.build import build
    from dhdiff_ray.training.checkpoint import publish
    from dhdiff_ray.training.loop import PlainEngine, fit

    storage = tmp_path_factory.mktemp("runs")
    config = load(storage, images, "trained", "train.steps=2")
    folder = RunFolder.of(str(storage), "trained")
    split = make_split(open_dataset("procedural").scan(images), fraction=0.5, seed=0, root=images)
    folder.write_json("split.json", split.to_json())
    folder.write_json("config.json", config.model_dump(mode="json"))
    for category in CATEGORIES:
        own = split.category(category)
        samples, pictures, masks = read_many(own.train, 32, False, print)
        parts = build(config, samples, pictures)
        source = BatchSource(config, samples, pictures, masks, parts.tokenizer)
        fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
        defects = sorted({s.defect for s in own.train if not s.is_good})
        publish(parts, None, folder, category, config, {"defects": defects})
    return Path(folder.path())


@pytest.fixture
def trained(trained_once, images, tmp_path):
    """A copy of the trained run, to be changed at will: trained(*sets) gives its configuration."""
    shutil.copytree(trained_once, tmp_path / "trained")
    return lambda *sets: load(tmp_path, images, "trained", *sets)


@pytest.fixture(scope="session")
def paired_once(trained_once, images, tmp_path_factory):
    """The trained run with its pairs, made in this process."""
    from dhdiff_ray.on_ray import synthesize
    from dhdiff_ray.storage import RunFolder

    storage = tmp_path_factory.mktemp("paired")
    shutil.copytree(trained_once, storage / "trained")
    config = load(storage, images, "trained")
    folder = RunFolder.of(str(storage), "trained")
    split = synthesize.stored_split(folder, str(images))
    maker = synthesize.Maker(config.model_dump(mode="json"))
    for category in CATEGORIES:
        requests, units = synthesize.units_of(config, split, category, {})
        for unit in units:
            maker(unit)
        facts = folder.read_json(f"models/{category}/dhdiff.json")
        synthesize.finish(config, folder, split, requests, facts)
    return storage / "trained"


@pytest.fixture
def paired(paired_once, images, tmp_path):
    """A copy of the run with pairs: paired(*sets) gives its configuration."""
    shutil.copytree(paired_once, tmp_path / "trained")
    return lambda *sets: load(tmp_path, images, "trained", *sets)


@pytest.fixture(scope="session")
def two_cores():
    """A private cluster of two cores that this process is connected to; one for all tests, since each takes 12 s."""
    from dhdiff_ray.on_ray.cluster import local_cluster

    with local_cluster(num_cpus=2) as cluster:
        os.environ["OMP_NUM_THREADS"] = "1"
        yield cluster
