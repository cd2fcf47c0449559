"""One model of several datasets: shards written once, eras that open a few of them, batches without a state."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch

from dhdiff_ray.config import FOUNDATION_NAME, Config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.sources import lay_out_sources, parts_of
from dhdiff_ray.training import eras as eras_module
from dhdiff_ray.training import pool as pool_module
from dhdiff_ray.training.checkpoint import model_facts
from dhdiff_ray.training.eras import OPEN, Eras
from dhdiff_ray.training.examples import Words
from dhdiff_ray.training.pool import ShardWriter, plan_shards, read_pool, write_pool
from dhdiff_ray.training.pooled import (
    PoolSource,
    autoencoder_of,
    build_foundation,
    fitted_samples,
    read_fitted,
    train_foundation,
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Two datasets that both have a capsule."""
    folder = tmp_path_factory.mktemp("sources")
    generate(
        folder / "one", resolution=32, categories=["capsule", "mesh"], defects_per_type=6, train_good=6, test_good=1
    )
    generate(
        folder / "two", resolution=32, seed=1, categories=["capsule"], defects_per_type=6, train_good=6, test_good=1
    )
    return folder / "one", folder / "two"


@pytest.fixture
def configured(configure, roots):
    """configured(run, *sets, weights=(1, 1)): a run of both sources."""

    def of(run, *sets, weights=(1, 1), more=()):
        config = configure(run, "train.normal_fraction=0.3", *sets)
        sources = [{"dataset": "procedural", "root": str(r), "weight": w} for r, w in zip(roots, weights, strict=True)]
        return Config.model_validate({**config.model_dump(), "sources": [*sources, *more]})

    return of


def written(config):
    run = Run(config)
    lay_out_sources(run, lambda *_, **__: None)
    pool = write_pool(run, partial(map, ShardWriter(run, partial(autoencoder_of, run))))
    return run, pool


def source_of(config, pool):
    parts = build_foundation(config, read_fitted(config, parts_of(Run(config))))
    return PoolSource(Eras(pool, config), Words.of(parts.tokenizer, pool.prompts))


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of four rows and eras of two steps."""
    monkeypatch.setattr(pool_module, "MOST_ROWS", 4)
    monkeypatch.setattr(eras_module, "ERA_ROWS", 10)


def same(one, other):
    return all(
        torch.equal(getattr(one, n), getattr(other, n)) for n in ("image", "mask", "reference", "regions", "tokens")
    )


def test_what_workers_see_together_does_not_depend_on_their_number(configured, small_shards):
    config = configured("ranks", "train.global_batch_size=5")
    source = source_of(config, written(config)[1])
    whole = [source.draw(step, 5) for step in range(4)]
    for workers in (2, 3, 5):
        shares = [source_of(config, read_pool(Run(config))) for _ in range(workers)]
        for step, expected in enumerate(whole):
            batches = [share.draw(step, 5, rank, workers) for rank, share in enumerate(shares)]
            for name in ("image", "mask", "reference", "control_mask", "tokens", "defect_tokens"):
                assert torch.equal(torch.cat([getattr(b, name) for b in batches]), getattr(expected, name)), name
            assert all(torch.equal(b.regions, expected.regions) and b.seed == expected.seed for b in batches)


def test_a_training_that_is_resumed_within_an_era_sees_the_batches_it_would_have_seen(configured, small_shards):
    config = configured("resumed", "train.global_batch_size=3", "train.steps=9")
    pool = written(config)[1]
    undisturbed = source_of(config, pool)
    every = [undisturbed.draw(step, 3) for step in range(9)]
    resumed = source_of(config, read_pool(Run(config)))
    assert Eras(pool, config).of(4) == Eras(pool, config).of(3) != Eras(pool, config).of(6)
    assert all(same(resumed.draw(step, 3), every[step]) for step in range(4, 9))
    assert not same(every[0], every[3])


def test_a_worker_holds_a_few_shards_however_many_there_are(configured, small_shards, monkeypatch):
    config = configured("bounded", "train.global_batch_size=2")
    pool = written(config)[1]
    assert len(pool.shards) > sum(OPEN.values())
    held = []
    monkeypatch.setattr(eras_module, "Cutter", lambda config, pictures, latents: held.append(pictures))
    for era in range(40):
        Eras(pool, config).cutter(era)
    assert max(len(pictures.shards) for pictures in held) <= sum(OPEN.values())
    assert {at for era in range(40) for at in Eras(pool, config).opened(era).shards} == set(range(len(pool.shards)))


def test_sources_are_drawn_from_by_their_weights_and_categories_alike(configured, small_shards):
    config = configured("weights", "train.global_batch_size=50", weights=(3, 1))
    eras = Eras(written(config)[1], config)
    drawn: dict[tuple[int, str], int] = {}
    for era in range(60):
        pictures = eras.cutter(era).pictures
        rng = np.random.default_rng(era)
        for _ in range(50):
            number = pictures.choose(0.3, rng.random(12))
            key = pictures.shards[pictures.where[number][0]].source, pictures.category[number]
            drawn[key] = drawn.get(key, 0) + 1
    share = {key: count / 3000 for key, count in drawn.items()}
    assert share[1, "capsule"] == pytest.approx(0.25, abs=0.04)
    assert share[0, "capsule"] == pytest.approx(0.375, abs=0.05)
    assert share[0, "mesh"] == pytest.approx(0.375, abs=0.05)


def test_each_training_image_lies_in_one_shard_and_no_test_image_in_any(configured, small_shards):
    config = configured("halves")
    run, pool = written(config)
    parts = parts_of(run)
    planned = [(plan.source, sample.key) for plan in plan_shards(parts, config) for sample in plan.samples]
    assert sorted(planned) == sorted((at, sample.key) for at, part in enumerate(parts) for sample in part.split.train)
    assert pool.images == len(planned) == sum(len(part.split.train) for part in parts)
    for part in parts:
        assert not {s.key for s in part.split.train} & {s.key for s in part.split.test}
    assert [part.name for part in parts] == ["procedural", "procedural-2"]


def test_shards_that_are_there_are_kept_and_a_damaged_one_is_named(configured, small_shards):
    config = configured("kept")
    run, pool = written(config)
    folder = run.folder
    before = {shard.file: folder.read_bytes(shard.file) for shard in pool.shards}
    manifest = next(name for name in folder.files("cache") if name.endswith("pool.json"))
    folder.delete(manifest)
    lost = pool.shards[2].file
    folder.delete(lost.replace(".safetensors", ".json"))
    made = []
    writer = ShardWriter(run)
    writer._tables = lambda *what: made.append(what) or ShardWriter._tables(writer, *what)
    assert write_pool(run, partial(map, writer)).shards == pool.shards
    assert len(made) == 1, "only what was missing is written again"
    assert {name: hashlib.sha256(folder.read_bytes(name)).digest() for name in before} == {
        name: hashlib.sha256(data).digest() for name, data in before.items()
    }
    folder.write_bytes(lost, before[lost][:-1] + b"?")
    with pytest.raises(ValueError, match=f"{lost} is damaged; remove the run's cache"):
        pool.read(2)


def test_a_source_that_cannot_be_read_is_named(configured, roots, tmp_path):
    with pytest.raises(ValueError, match=r"the source mvtec \(.*nowhere\) cannot be read: no dataset folder"):
        written(configured("gone", more=[{"dataset": "mvtec", "root": str(tmp_path / "nowhere")}]))
    config = configured("unknown", more=[{"dataset": "procedural", "root": str(roots[0]), "categories": ["msh"]}])
    with pytest.raises(ValueError, match=r"the source procedural-3 .*did you mean 'mesh'"):
        written(config)
    generate(tmp_path / "bad", resolution=32, categories=["mesh"], defects_per_type=4, train_good=3, test_good=1)
    bad = sorted((tmp_path / "bad" / "mesh" / "train" / "good").iterdir())[0]
    bad.write_bytes(b"no picture")
    config = configured("bad", more=[{"dataset": "procedural", "root": str(tmp_path / "bad")}])
    with pytest.raises(ValueError, match=f"the source procedural-3: {bad} cannot be read as an image"):
        written(config)


def test_a_run_goes_on_with_the_sources_it_was_begun_on_and_draws_no_pairs(configured, roots):
    config = configured("begun")
    run, _ = written(config)
    with pytest.raises(ValueError, match="begun on other sources"):
        written(configured("begun", more=[{"dataset": "procedural", "root": str(roots[0])}]))
    with pytest.raises(ValueError, match="holds a foundation, which has no pairs"):
        Run(config).categories  # noqa: B018
    first = json.loads(run.folder.read_bytes("split.json"))["sources"][0]["train"][0]
    assert first["sha256"]


def test_latents_are_encoded_into_the_shards_and_cut_from_them(configured, small_shards, tmp_path):
    from dhdiff_ray.model.taef2 import TinyAutoencoder

    vae = TinyAutoencoder()
    torch.save(vae.encoder.state_dict(), tmp_path / "taef2_encoder.pth")
    torch.save(vae.decoder.state_dict(), tmp_path / "taef2_decoder.pth")
    sets = ("model.autoencoder=taef2", f"model.autoencoder_weights={tmp_path}", "train.window=0", "train.flips=true")
    config = configured("latents", *sets, "train.global_batch_size=2", "train.steps=1")
    config = config.model_copy(update={"sources": config.sources[1:]})
    pool = written(config)[1]
    batch = source_of(config, pool).draw(0, 2)
    assert batch.latents.shape[:2] == (3, 2)
    assert batch.latents.std() > 0
    parts = build_foundation(config, read_fitted(config, parts_of(Run(config))))
    pool.check_autoencoder(parts.vae)
    loss, _ = parts.objective(batch)
    assert torch.isfinite(loss)
    with torch.no_grad():
        next(parts.vae.parameters()).add_(1)
    with pytest.raises(ValueError, match="encoded by another autoencoder"):
        pool.check_autoencoder(parts.vae)


def test_a_foundation_is_trained_without_ray_and_says_what_it_was_trained_on(configured):
    config = configured("here", "train.steps=2")
    losses = []
    train_foundation(Run(config), lambda done, log: losses.append(log["loss"]))
    assert len(losses) == 2
    folder = Run(config).folder
    facts = model_facts(folder, FOUNDATION_NAME)
    assert facts["sources"]
    assert facts["images_licence"] == "CC0-1.0"
    assert [source["categories"] for source in facts["sources"]] == [["capsule", "mesh"], ["capsule"]]
    assert facts["training_images"] == sum(source["training_images"] for source in facts["sources"])
    pipeline = DHDiffPipeline.from_pretrained(folder.path(f"models/{FOUNDATION_NAME}"))
    drawn = pipeline("a photo of a mesh with hole", num_inference_steps=1, seed=0)
    assert drawn.images


def test_what_is_fitted_is_fitted_to_some_images_with_one_of_each_defect(configured, monkeypatch):
    from dhdiff_ray.training import pooled

    config = configured("fitted")
    parts = parts_of(written(config)[0])
    monkeypatch.setattr(pooled, "ANOMALIES", 3)
    monkeypatch.setattr(pooled, "NORMAL", 2)
    samples = fitted_samples(parts)
    names = {(s.category, s.defect) for part in parts for s in part.split.train}
    assert {(s.category, s.defect) for s in samples} == names
    assert len(samples) <= len(names) + 5
