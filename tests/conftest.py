"""The real classes at tiny size, offline: one really trained, really tiny run, and a private cluster of two cores."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

TEMPORARY = "DHDIFF_TEST_TEMPORARY"
"""The session's temporary folder, told to the processes that share its tests: short, since sockets lie below it."""
if TEMPORARY not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest's own folders stay, for a look
    os.environ[TEMPORARY] = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="dht-")
    tempfile.tempdir = None


def pytest_unconfigure(config):
    """Nothing that tests, or what they started, put into the temporary folder outlives them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[TEMPORARY], ignore_errors=True)


SETS = (
    "data.dataset=procedural",
    "model.backbone=''",
    "synthesize.start=noise",
    "synthesize.strength=1.0",
    "synthesize.placement=free",
    "train.learning_rate=3e-3",
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


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def backbone_config():
    """A U-Net whose coarse block and mid block attend to text: two encoder blocks, one decoder block."""
    return {
        "sample_size": 8,
        "in_channels": 12,
        "out_channels": 12,
        "block_out_channels": [16, 24],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory):
    """A folder in Stable Diffusion's layout, written with the real classes at tiny size."""
    import json

    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = "a photo of a bottle capsule with broken large crack squeeze poke without defect"
    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(folder / "vae")
    letters = sorted(set(words.replace(" ", "")))
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    raw = folder / "raw"
    raw.mkdir()
    (raw / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    (raw / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(raw / "vocab.json"), str(raw / "merges.txt"), model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=16,
            **ends,
        )
    ).save_pretrained(folder / "text_encoder")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    return folder


def load(storage, root, run, *sets):
    from dhdiff_ray.config.load import load_config

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
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.build import build, build_source
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
        source = build_source(parts, config, samples, pictures, masks)
        fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
        publish(parts, None, Run(config), category, Run(config).training_facts(category, len(samples)))
    return Path(folder.path())


@pytest.fixture
def trained(trained_once, images, tmp_path):
    """A copy of the trained run, to be changed at will: trained(*sets) gives its configuration."""
    shutil.copytree(trained_once, tmp_path / "trained")
    return lambda *sets: load(tmp_path, images, "trained", *sets)


@pytest.fixture(scope="session")
def paired_once(trained_once, images, tmp_path_factory):
    """The trained run with its pairs, made in this process."""
    from dhdiff_ray.on_ray.verbs import synthesize
    from dhdiff_ray.pairs.units import CategoryPairs, units_of
    from dhdiff_ray.pairs.writer import write_card
    from dhdiff_ray.run.run import Run

    storage = tmp_path_factory.mktemp("paired")
    shutil.copytree(trained_once, storage / "trained")
    run = Run(load(storage, images, "trained"))
    maker = synthesize.Maker(run)
    for category in CATEGORIES:
        requests, units = units_of(run, category, {})
        for unit in units:
            maker(unit)
        CategoryPairs(run.folder.read_json(f"models/{category}/dhdiff.json"), requests, units).finish(run)
    write_card(run.folder)
    return storage / "trained"


@pytest.fixture
def paired(paired_once, images, tmp_path):
    """A copy of the run with pairs: paired(*sets) gives its configuration."""
    shutil.copytree(paired_once, tmp_path / "trained")
    return lambda *sets: load(tmp_path, images, "trained", *sets)


@pytest.fixture(scope="session")
def two_cores():
    """A private cluster of two cores that this process is connected to; one for all tests, since each takes 12 s."""
    from dhdiff_ray.on_ray.cluster.local import local_cluster

    with local_cluster(num_cpus=2) as cluster:
        os.environ["OMP_NUM_THREADS"] = "1"
        yield cluster


@pytest.fixture(scope="session")
def served_config(trained_once, images):
    """The trained run as the endpoint's tests serve it; its files are only read."""
    return load(trained_once.parent, images, "trained", "synthesize.background=keep", "serve.batch_wait_ms=1")


@pytest.fixture(scope="module")
def client(served_config):
    """The application around a real service, in this process."""
    from fastapi.testclient import TestClient

    from dhdiff_ray.serving.api import make_app
    from dhdiff_ray.serving.service import Service

    with TestClient(make_app(Service(served_config)), "http://localhost") as client:
        yield client
