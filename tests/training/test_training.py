import numpy as np
import pytest
import torch
from torch.nn import functional

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.model.dda import ImageCrossAttention
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import encode, mask_to_image, to_mask, to_tensor
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.build import build, build_source, fit_look
from dhdiff_ray.training.checkpoint import is_trained, model_facts, publish
from dhdiff_ray.training.loop import PlainEngine, fit, learning_rate, new_average

SMALL = (
    "model.backbone=''",
    "train.learning_rate=3e-3",
    "data.resolution=32",
    "model.haar_levels=1",
    "model.channels=[16,16]",
    "model.attention_blocks=[false,true]",
    "model.dda_encoder=[0,1]",
    "model.dda_decoder=[0]",
    "model.ssm_encoder=[0,1]",
    "model.ssm_decoder=[0]",
    "model.text_width=16",
    "train.global_batch_size=4",
    "train.steps=6",
    "train.checkpoint_every=3",
    "train.window=0",
)


@pytest.fixture(scope="module")
def capsules(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "procedural"
    generate(root, resolution=32, categories=["capsule"], defects_per_type=2, train_good=2, test_good=1)
    return read_many(open_dataset("procedural").scan(root), 32, False, print)


def _parts(capsules, *sets):
    config = load_config(preset="tiny", sets=(*SMALL, *sets)).config
    samples, images, masks = capsules
    parts = build(config, samples, images)
    source = build_source(parts, config, samples, images, masks)
    fit_look(parts, source)
    return config, parts, source


def test_a_batch_depends_on_seed_and_step_alone(capsules):
    _, _, source = _parts(capsules)
    one, again, next_one = source.draw(3, 4), source.draw(3, 4), source.draw(4, 4)
    assert torch.equal(one.image, again.image)
    assert not torch.equal(one.image, next_one.image)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["white", "texture"])
@pytest.mark.parametrize("noise", ["same", "independent", "clean"])
def test_what_workers_see_together_and_their_mean_loss_and_gradients_are_those_of_one(capsules, noise, kind, workers):
    sets = ("train.clean_background=0.5", "train.window=16", f"train.reference_noise={noise}", f"train.noise={kind}")
    _, parts, source = _parts(capsules, *sets, "train.defect_weight=0.5")
    objective = parts.objective
    seen = []
    add_noise = objective.scheduler.add_noise
    objective.scheduler.add_noise = lambda *what: seen.append(what) or add_noise(*what)

    def looked_at(rank, world_size):
        seen.clear()
        objective.zero_grad()
        batch = source.draw(7, 4, rank, world_size)
        loss, log = objective(batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in objective.trained_parameters() if p.grad is not None])
        return batch, seen[0], torch.stack([loss.detach(), *log.values()]), gradient

    whole = looked_at(0, 1)
    shares = [looked_at(rank, workers) for rank in range(workers)]
    for name in ("image", "mask", "reference", "control_mask", "control_present", "region", "tokens", "defect_tokens"):
        assert torch.equal(torch.cat([getattr(share[0], name) for share in shares]), getattr(whole[0], name)), name
    for number, name in enumerate(("latents", "noise", "timesteps")):
        for domain in (0, 1):
            together = torch.cat([split(share[1][number])[domain] for share in shares])
            if kind == "white" or name == "timesteps" or domain == 1:
                assert torch.equal(together, split(whole[1][number])[domain]), name
            torch.testing.assert_close(together, split(whole[1][number])[domain], rtol=0, atol=0.01)
    assert whole[0].region.mean() < 1, "the case in which a mean of means would not be the mean"
    for number in (2, 3):
        mean = sum(share[number] for share in shares) / workers
        torch.testing.assert_close(mean, whole[number], rtol=1e-5, atol=1e-6 if kind == "white" else 1e-3)


def test_how_eq4_starts_is_as_configured_in_every_layer(capsules):
    _, parts, _ = _parts(capsules, "model.dda_start=own", "model.zero_conv_gain=3")
    layers = [m for m in parts.objective.unet.modules() if isinstance(m, ImageCrossAttention)]
    assert layers
    for layer in layers:
        assert layer.zero_conv.gain == 3
        assert torch.equal(layer.project.to_q.weight, layer.project.to_k.weight)


def test_with_textured_noise_a_good_surface_is_noised_to_one_like_it_and_a_new_network_answers_nothing(capsules):
    _, parts, source = _parts(capsules, "train.noise=texture", "train.normal_fraction=1")
    unet, seen = parts.objective.unet, []
    unet.register_forward_hook(lambda module, given, answer: seen.append((given[0], answer)))
    batch = source.draw(0, 4)
    parts.objective(batch)
    noised, answer = seen[0]
    assert not answer.any()
    region = functional.max_pool2d(batch.region, 2)
    image, known = split(noised)[0], encode(parts.vae, batch.image)
    torch.testing.assert_close(image * (1 - region), known * (1 - region), atol=1e-4, rtol=1e-4)
    within = [(x * region).sum((2, 3)).var(0).mean() for x in (image, known)]
    assert (image - known).mul(region).any()
    assert within[0] < 4 * within[1], "white noise of these latents' power would be far off"


def test_with_textured_noise_how_real_defects_look_is_known_from_their_masks_before_training(capsules):
    _, parts, source = _parts(capsules, "train.noise=texture")
    unet, examples, rows = parts.objective.unet, source.examples, source.anomalies
    z = encode(parts.vae, to_tensor(examples.images[rows]))
    annotation = encode(parts.vae, mask_to_image(to_mask(examples.masks[rows])))
    region = functional.max_pool2d(to_mask(examples.raw_masks[rows]), 2)
    change = z - split(unet.texture.mean(join(z, z), join(region, region)))[0]
    nothing = torch.zeros_like(z)
    velocity, noised = join(nothing, -annotation), join(nothing, nothing)
    answer = unet.look(velocity, noised, join(region, region), torch.tensor(0.0))
    near = functional.max_pool2d(functional.max_pool2d(to_mask(examples.masks[rows]), 2), 3, 1, 1) * region
    left, before = ((c.square() * near).sum() for c in (change + split(answer)[0], change))
    assert left < 0.7 * before


def test_normal_images_have_no_defect_words_and_an_empty_mask(capsules):
    _, _, source = _parts(capsules, "train.normal_fraction=1.0", "train.control_dropout=0.0")
    batch = source.draw(0, 8)
    assert batch.mask.sum() == batch.defect_tokens.sum() == batch.raw_mask.sum() == 0


def test_conditions_are_dropped_as_often_as_asked(capsules):
    _, _, source = _parts(
        capsules, "train.text_dropout=1.0", "train.control_dropout=1.0", "train.reference_dropout=1.0"
    )
    batch = source.draw(0, 8)
    assert batch.control_present.sum() == batch.defect_tokens.sum() == 0
    assert torch.equal(batch.tokens, source.examples.empty_tokens.expand(8, -1))
    assert batch.reference.std() == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_control_mask_shows_the_defects_cells_or_its_outline_as_often_as_asked(capsules, share):
    _, _, source = _parts(
        capsules, f"train.fine_control={share}", "train.normal_fraction=0", "train.control_dropout=0.2"
    )
    batch = source.draw(0, 200)
    shown = batch.control_present > 0
    fine, raw = ((batch.control_mask == kind).flatten(1).all(1) for kind in (batch.mask, batch.raw_mask))
    assert (fine ^ raw)[shown].all()
    assert abs(fine[shown].float().mean() - share) < 0.15


@pytest.mark.parametrize("noise", ["same", "independent", "clean"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_every_way_to_noise_and_to_predict_gives_a_finite_loss(capsules, noise, prediction):
    _, parts, source = _parts(capsules, f"train.reference_noise={noise}", f"train.prediction={prediction}")
    loss, _ = parts.objective(source.draw(0, 2))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("noise", ["same", "independent", "clean"])
def test_the_reference_gets_the_noise_and_step_of_the_image_or_noise_of_its_own_or_none(capsules, noise):
    _, parts, source = _parts(capsules, f"train.reference_noise={noise}", "train.clean_background=0")
    objective, batch, seen = parts.objective, source.draw(0, 4), {}
    real = objective.unet.encode_reference

    def watched(latents, timestep, text):
        seen["reference"] = latents, timestep
        return real(latents, timestep, text)

    objective.unet.encode_reference = watched
    objective.unet.register_forward_pre_hook(lambda _, given: seen.update(image=(given[0].chunk(2)[0], given[1])))
    objective(batch)
    level = objective.scheduler.alphas_cumprod
    (z_image, t), (z_reference, t_reference) = seen["image"], seen["reference"]
    clean_image, clean_reference = encode(parts.vae, batch.image), encode(parts.vae, batch.reference)

    def noise_in(noised, clean, step):
        alpha = level[step][:, None, None, None]
        return (noised - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    if noise == "clean":
        assert torch.equal(z_reference, clean_reference)
        assert (t_reference == 0).all()
        return
    assert torch.equal(t_reference, t)
    of_image, of_reference = noise_in(z_image, clean_image, t), noise_in(z_reference, clean_reference, t)
    assert of_reference.std() == pytest.approx(1, abs=0.1)
    if noise == "same":
        torch.testing.assert_close(of_reference, of_image, atol=1e-3, rtol=1e-3)
    else:
        assert abs(torch.corrcoef(torch.stack([of_image.flatten(), of_reference.flatten()]))[0, 1]) < 0.1


def test_words_differ_and_stay_what_they_are_while_the_network_learns_to_read_them(capsules):
    config, parts, source = _parts(capsules)
    examples = source.examples
    defects = torch.cat([examples.tokens[same[:1]] for same in examples.by_defect])
    before = parts.text_encoder(defects).last_hidden_state
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    assert torch.equal(parts.text_encoder(defects).last_hidden_state, before)
    words = before[examples.defect_tokens[[same[0] for same in examples.by_defect]].bool()]
    spread = (words - words.mean(0)).square().sum(1).mean() / words.square().sum(1).mean()
    assert spread > 0.5


def test_training_lowers_the_loss_on_a_fixed_batch(capsules):
    config, parts, source = _parts(capsules, "train.steps=40", "train.learning_rate=3e-3")
    batch = source.draw(0, 4)
    before = parts.objective(batch)[0].item()
    source.draw = lambda *_: batch
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    assert parts.objective(batch)[0].item() < 0.7 * before


def test_resuming_from_weights_and_moments_gives_what_an_uninterrupted_run_gives(capsules):
    def trained(stop):
        config, parts, source = _parts(capsules)
        engine = PlainEngine(parts.objective, config.train)
        if stop:
            fit(engine, source, config.train.model_copy(update={"steps": 6}), average=None, start=0)
            return parts.objective.state_dict()
        kept = {}

        def remember(done, _):
            if done == 3:
                kept["weights"] = {k: v.clone() for k, v in parts.objective.state_dict().items()}
                kept["moments"] = torch.utils._pytree.tree_map(
                    lambda x: x.clone() if isinstance(x, torch.Tensor) else x, engine.optimizer.state_dict()
                )

        fit(engine, source, config.train, average=None, on_checkpoint=remember)
        _, fresh, source = _parts(capsules)
        fresh.objective.load_state_dict(kept["weights"])
        second = PlainEngine(fresh.objective, config.train)
        second.optimizer.load_state_dict(kept["moments"])
        fit(second, source, config.train, average=None, start=3)
        return fresh.objective.state_dict()

    whole, resumed = trained(stop=True), trained(stop=False)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_learning_rate_rises_and_falls_as_configured():
    config = load_config(
        sets=("train.steps=100", "train.warmup_steps=10", "train.decay=cosine", "train.learning_rate=1.0")
    ).config.train
    rates = [learning_rate(i, config) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


def test_a_batch_that_workers_cannot_share_is_refused_with_what_to_change(capsules):
    config, parts, source = _parts(capsules)
    with pytest.raises(ValueError, match="global_batch_size = 4 has no row for each of 5 workers"):
        fit(PlainEngine(parts.objective, config.train), source, config.train, average=None, world_size=5)


@pytest.mark.parametrize("window", [30, 48])
def test_a_window_the_network_cannot_work_on_is_refused_with_what_fits(capsules, window):
    with pytest.raises(ValueError, match=r"multiple of 4 and at most data.resolution = 32; set train.window"):
        _parts(capsules, f"train.window={window}")


def test_a_published_model_samples_the_same_pair_after_loading(capsules, tmp_path):
    config, parts, source = _parts(capsules, "train.steps=2")
    average = new_average(parts.objective, config.train)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=average)
    folder = RunFolder.of(str(tmp_path), "run")
    assert not is_trained(folder, "capsule")
    publish(parts, average, Run(config, folder), "capsule", {"defects": ["crack"]})
    assert model_facts(folder, "capsule")["defects"] == ["crack"]
    assert not list((tmp_path / "run").rglob("*.bin"))
    loaded = DHDiffPipeline.from_pretrained(tmp_path / "run/models/capsule")

    def sample(pipeline):
        made = pipeline(
            "a photo of a capsule with crack",
            defect="crack",
            seed=5,
            size=(32, 32),
            reference=torch.zeros(1, 3, 32, 32),
            num_inference_steps=3,
            output_type="pt",
        )
        return np.concatenate([made.images.flatten().numpy(), made.masks.flatten().numpy()])

    assert np.array_equal(sample(loaded), sample(parts.pipeline()))
