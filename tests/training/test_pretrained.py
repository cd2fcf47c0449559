"""Training on a Stable-Diffusion-shaped backbone and on a learned autoencoder, at tiny size with the real classes."""

import copy

import numpy as np
import pytest
import torch

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.adapt import without_adapters
from dhdiff_ray.training.batches import BatchSource
from dhdiff_ray.training.build import build, build_source
from dhdiff_ray.training.checkpoint import publish
from dhdiff_ray.training.loop import PlainEngine, fit, new_average

SMALL = (
    "data.resolution=16",
    "train.global_batch_size=2",
    "train.steps=2",
    "train.window=0",
    "model.dda_encoder=[0,1]",
    "model.dda_decoder=[0]",
    "model.ssm_encoder=[0,1]",
    "model.ssm_decoder=[0]",
)


@pytest.fixture(scope="module")
def capsules(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "procedural"
    generate(root, resolution=32, categories=["capsule"], defects_per_type=2, train_good=2, test_good=1)
    return read_many(open_dataset("procedural").scan(root), 16, False, print)


def parts_of(capsules, backbone, *sets):
    sets = (*SMALL, f"model.backbone={backbone}", "train.gradient_checkpointing=false", "train.precision=fp32", *sets)
    config = load_config(preset="sd15", sets=sets).config
    return config, build(config, capsules[0], capsules[1])


@pytest.mark.parametrize("adapt", ["full", "lora"])
def test_a_backbone_trains_is_published_and_draws(capsules, stable_diffusion, tmp_path, adapt):
    config, parts = parts_of(capsules, stable_diffusion, f"train.adapt={adapt}", "train.gradient_checkpointing=true")
    frozen = copy.deepcopy((parts.vae.state_dict(), parts.text_encoder.state_dict()))
    before = copy.deepcopy(parts.objective.state_dict())
    source = build_source(parts, config, *capsules)
    average = new_average(parts.objective, config.train)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=average)
    for kept, module in zip(frozen, (parts.vae, parts.text_encoder), strict=True):
        assert all(torch.equal(kept[k], v) for k, v in module.state_dict().items()), "frozen parts do not move"
    moved = {k for k, v in parts.objective.state_dict().items() if not torch.equal(before[k], v)}
    base = {k for k in moved if "base_layer" in k}
    assert not base, "adapters leave the backbone's own projections alone"
    assert any("lora_" in k for k in moved) == (adapt == "lora")
    assert any("zero_conv" in k for k in moved)
    folder = RunFolder.of(str(tmp_path), "run")
    publish(parts, average, Run(config, folder), "capsule", {"defects": ["crack"]})
    loaded = DHDiffPipeline.from_pretrained(tmp_path / "run/models/capsule")
    assert not any("lora" in k for k in loaded.unet.state_dict())
    named = {"seed": 1, "output_type": "np", "num_inference_steps": 2, "guidance_scale": 2.0, "size": (16, 16)}
    one = loaded(defect="crack", **named)
    np.testing.assert_allclose(parts.pipeline()(defect="crack", **named).images, one.images, atol=1e-5)


def test_folding_adapters_in_changes_no_prediction(capsules, stable_diffusion):
    _, parts = parts_of(capsules, stable_diffusion, "train.adapt=lora")
    unet = parts.objective.unet.eval()
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    z, text, t = torch.randn(2, 4, 8, 8), torch.randn(1, 5, 16), torch.tensor([50])
    with torch.no_grad():
        torch.testing.assert_close(without_adapters(unet)(z, t, text), unet(z, t, text), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("flips", ["false", "true"])
def test_a_cached_batch_gives_the_loss_of_an_encoded_one(capsules, stable_diffusion, tmp_path, flips):
    config, parts = parts_of(capsules, stable_diffusion, f"train.flips={flips}")
    folder = RunFolder.of(str(tmp_path), "run")
    cached = build_source(parts, config, *capsules, folder=folder, category="capsule")
    plain = BatchSource(config, cached.examples)
    for step in range(3):
        wanted, _ = parts.objective(plain.draw(step, 4))
        got, _ = parts.objective(cached.draw(step, 4))
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_the_cache_is_computed_once_per_run_and_anew_when_what_it_depends_on_changes(
    capsules, stable_diffusion, tmp_path
):
    folder = RunFolder.of(str(tmp_path), "run")
    config, parts = parts_of(capsules, stable_diffusion)
    build_source(parts, config, *capsules, folder=folder, category="capsule")
    parts.vae.forward = parts.vae.encode = None  # a second computation would fail
    build_source(parts, config, *capsules, folder=folder, category="capsule")
    assert len([f for f in folder.files("cache") if f.endswith(".safetensors")]) == 1
    config, parts = parts_of(capsules, stable_diffusion, "train.reference=background")
    build_source(parts, config, *capsules, folder=folder, category="capsule")
    assert len([f for f in folder.files("cache") if f.endswith(".safetensors")]) == 2


def test_what_is_encoded_for_the_cache_is_told_until_all_is(capsules, stable_diffusion):
    told = []
    config, parts = parts_of(capsules, stable_diffusion)
    build_source(parts, config, *capsules, on_progress=lambda *progress: told.append(progress))
    total = 3 * len(capsules[0])
    assert told == sorted(told)
    assert told[-1] == (total, total) and {of for _, of in told} == {total}


def test_bf16_keeps_the_weights_in_fp32_and_the_loss_close(capsules, stable_diffusion):
    _, plain = parts_of(capsules, stable_diffusion)
    config, half = parts_of(capsules, stable_diffusion, "train.precision=bf16")
    source = build_source(half, config, *capsules)
    batch = source.draw(0, 2)
    wanted, got = plain.objective(batch)[0], half.objective(batch)[0]
    assert got.item() == pytest.approx(wanted.item(), rel=0.02)
    assert got.item() != wanted.item()
    assert {p.dtype for p in half.objective.parameters()} == {torch.float32}


def test_windows_of_a_learned_autoencoder_are_cut_from_cached_latents(tmp_path):
    torch.manual_seed(0)
    vae = TinyAutoencoder()
    torch.save(vae.encoder.state_dict(), tmp_path / "taef2_encoder.pth")
    torch.save(vae.decoder.state_dict(), tmp_path / "taef2_decoder.pth")
    root = tmp_path / "procedural"
    generate(root, resolution=64, categories=["capsule"], defects_per_type=1, train_good=1, test_good=1)
    samples = read_many(open_dataset("procedural").scan(root), 64, False, print)
    sets = (f"model.autoencoder_weights={tmp_path}", "data.resolution=64", "train.window=32", "model.channels=[16,16]",
            "model.attention_blocks=[false,true]", "model.dda_encoder=[0,1]", "model.ssm_encoder=[0,1]",
            "train.flips=true", "train.reference_dropout=0")  # fmt: skip
    config = load_config(preset="taef2", sets=sets).config
    parts = build(config, samples[0], samples[1])
    folder = RunFolder.of(str(tmp_path), "run")
    source = build_source(parts, config, *samples, folder=folder, category="capsule")
    parts.vae.mean += 1e-6  # the last bits of what was fitted depend on the number of threads
    build_source(parts, config, *samples, folder=folder, category="capsule")
    assert len([f for f in folder.files("cache") if f.endswith(".safetensors")]) == 1
    batch = source.draw(0, 4)
    assert batch.image.shape == (4, 3, 32, 32)
    assert batch.latents.shape == (3, 4, 32, 4, 4)
    decoded = parts.vae.decode(parts.vae.encode(batch.image))
    agreement = torch.nn.functional.cosine_similarity(parts.vae.decode(batch.latents[0]).flatten(1), decoded.flatten(1))
    assert agreement.min() > 0.9, "the window's latent is that window's"
    loss, _ = parts.objective(batch)
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_stable_diffusion_at_its_real_size_starts_as_the_backbone_and_takes_a_step():
    from diffusers import UNet2DConditionModel

    from dhdiff_ray.model.domains import join, split
    from dhdiff_ray.model.loss import dh_loss
    from dhdiff_ray.model.unet import DHDiffUNet

    torch.manual_seed(0)
    torch.set_num_threads(2)
    sizes = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    plain = UNet2DConditionModel(**sizes)
    unet = DHDiffUNet.from_backbone(plain, eta_start="identity")
    alone, size = (sum(p.numel() for p in network.parameters()) for network in (plain, unet))
    assert alone < size < 1.1 * alone  # two strands and their merging: 74 million on 860
    image, annotation = torch.randn(2, 1, 4, 32, 32)
    text, t = torch.randn(1, 77, 768), torch.tensor([500])
    with torch.no_grad():
        for domain, got in zip((image, annotation), split(unet(join(image, annotation), t, text)), strict=True):
            torch.testing.assert_close(got, plain(domain, t, text).sample, atol=1e-4, rtol=1e-3)
    del plain
    unet.enable_gradient_checkpointing()
    references = unet.encode_reference(torch.randn(1, 4, 32, 32), t, text)
    target = torch.randn(2, 4, 32, 32)
    predicted = unet(join(image, annotation), t, text, references=references)
    loss, *_ = dh_loss(predicted, target)
    loss.backward()
    moved = unet.backbone.down_blocks[0].attentions[0].transformer_blocks[0].attn1.image.zero_conv.conv.weight
    assert moved.grad.abs().sum() > 0
    torch.optim.SGD(unet.parameters(), lr=1e-4).step()
    after, *_ = dh_loss(
        unet(join(image, annotation), t, text, references=unet.encode_reference(torch.zeros(1, 4, 32, 32), t, text)),
        target,
    )
    assert torch.isfinite(after)
