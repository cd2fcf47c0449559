import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from PIL import Image

from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.text import LEAST_LENGTH


def draw(pipeline, prompt="a photo of a bottle with broken large", **named):
    return pipeline(
        prompt, **{"defect": "broken large", "seed": 1, "output_type": "pt", "num_inference_steps": 3, **named}
    )


@pytest.fixture
def base():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def test_pairs_come_as_pictures_arrays_or_tensors_of_the_same_content(pipeline):
    made, arrays, pictures = (draw(pipeline, output_type=kind) for kind in ("pt", "np", "pil"))
    assert made.images.shape == (1, 3, 16, 16)
    assert made.masks.shape == made.float_masks.shape == (1, 1, 16, 16)
    np.testing.assert_array_equal(arrays.images, made.images.permute(0, 2, 3, 1).numpy())
    assert pictures.images[0].size == (16, 16)
    assert pictures.masks[0].mode == "L"
    assert set(np.unique(pictures.masks[0])) <= {0, 255}


def test_a_defect_alone_is_enough_where_the_model_knows_its_prompt(pipeline):
    named = pipeline("a photo of a bottle with broken large", defect="broken large", seed=1, output_type="pt")
    assert torch.equal(pipeline(defect="broken_large", seed=1, output_type="pt").images, named.images)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), DDPMScheduler(), DPMSolverMultistepScheduler(algorithm_type="dpmsolver++"),
                  DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")]
)  # fmt: skip
def test_a_pair_is_the_same_in_any_batch_under_every_scheduler(pipeline, scheduler):
    pipeline.scheduler = scheduler
    prompts = [
        "a photo of a bottle with crack",
        "a photo of a bottle with broken large",
        "a photo of a bottle with crack",
    ]
    together = pipeline(
        prompts, defect=["crack", "broken large", "crack"], seed=4, output_type="pt", num_inference_steps=3
    )
    alone = draw(pipeline, seed=5)
    torch.testing.assert_close(together.images[1], alone.images[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.float_masks[1], alone.float_masks[0], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(together.images[0], together.images[2], atol=1e-3), "the seed counts"


def test_the_noise_of_a_pair_does_not_depend_on_its_batch_at_all(pipeline):
    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    three = pipeline.prepare_noise((16, 16), generators(7, 8, 9))
    one = pipeline.prepare_noise((16, 16), generators(8))
    assert torch.equal(three[[1, 4]], one)


def test_requests_with_and_without_reference_and_control_share_a_batch(pipeline, base):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 255
    two = draw(
        pipeline,
        ["a photo of a bottle with crack"] * 2,
        defect="crack",
        reference=[base, None],
        control_mask=[None, mask],
    )
    first = draw(pipeline, "a photo of a bottle with crack", defect="crack", reference=[base])
    torch.testing.assert_close(two.images[0], first.images[0], atol=1e-4, rtol=1e-3)
    blank = torch.full((1, 3, 16, 16), 127 / 127.5 - 1)
    second = draw(
        pipeline, "a photo of a bottle with crack", defect="crack", seed=2, reference=blank, control_mask=mask
    )
    torch.testing.assert_close(two.images[1], second.images[0], atol=1e-4, rtol=1e-3)


def test_a_drawn_control_changes_the_mask(pipeline):
    free, drawn = draw(pipeline), draw(pipeline, points=[(5, 5)])
    assert not torch.allclose(free.float_masks, drawn.float_masks, atol=1e-4)


@pytest.mark.parametrize("background", ["keep", "clean"])
@pytest.mark.parametrize("edges", [(4, 8), (3, 7)], ids=["on the latent's grid", "off it"])
def test_a_kept_background_has_the_bases_own_pixels_and_an_empty_mask(pipeline, base, background, edges):
    raw = np.zeros((16, 16), np.uint8)
    raw[slice(*edges), slice(*edges)] = 255
    made = draw(pipeline, base=base, raw_mask=raw, background=background)
    pixels = torch.from_numpy(np.array(base)).permute(2, 0, 1) / 255
    outside = torch.from_numpy(raw == 0)
    torch.testing.assert_close(made.images[0][:, outside], pixels[:, outside], atol=1e-6, rtol=0)
    assert not made.masks[0, 0][outside].any()


def test_what_is_drawn_beside_the_mask_passes_into_the_base_where_that_is_asked_for(pipeline, base):
    raw = np.zeros((16, 16), np.uint8)
    raw[2:14, 2:14] = 255
    drawn, faded = (draw(pipeline, base=base, raw_mask=raw, background="clean", fade=fade) for fade in (False, True))
    assert torch.equal(drawn.float_masks, faded.float_masks)
    mask = drawn.masks[0, 0] > 0
    beside = torch.from_numpy(raw > 0) & ~mask
    assert mask.any() and beside.any()
    assert torch.equal(drawn.images[0][:, mask], faded.images[0][:, mask])
    pixels = torch.from_numpy(np.array(base)).permute(2, 0, 1) / 255
    away, left = ((made.images[0] - pixels)[:, beside].abs() for made in (drawn, faded))
    assert (left <= away + 1e-6).all()
    assert (left < away - 0.05).any()
    pipeline.register_to_config(defaults={**pipeline.config["defaults"], "fade": True})
    assert torch.equal(draw(pipeline, base=base, raw_mask=raw, background="clean").images, faded.images)


def test_starting_from_the_base_with_little_strength_stays_near_it(pipeline, base):
    pixels = torch.from_numpy(np.array(base)).permute(2, 0, 1) / 255

    def distance(strength):
        made = draw(pipeline, base=base, points=[(5, 5)], start="base", strength=strength, num_inference_steps=10)
        return (made.images[0] - pixels).abs().mean()

    assert distance(0.1) < distance(1.0)


def test_the_callback_sees_each_step_and_may_change_the_latents(pipeline):
    seen = []

    def stop_at_zero(pipe, step, timestep, tensors):
        seen.append((step, timestep, tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    made = draw(pipeline, callback_on_step_end=stop_at_zero)
    assert [s for s, _, _ in seen] == [0, 1, 2]
    assert seen[0][2] == (2, 12, 8, 8)
    torch.testing.assert_close(made.images, torch.full_like(made.images, 0.5))


def test_score_maps_come_per_step_and_layer_and_change_nothing(pipeline):
    made = draw(pipeline, points=[(5, 5)], return_score_maps=True, guidance_scale=2.0)
    assert len(made.score_maps) == 3
    layer = made.score_maps[0][0]
    assert set(layer) == {"layer", "image", "annotation", "control", "image_hat", "annotation_hat"}
    assert layer["image"].shape == (1, LEAST_LENGTH, 4, 4)
    torch.testing.assert_close(layer["image"].sum(1), torch.ones(1, 4, 4))
    again = draw(pipeline, points=[(5, 5)], guidance_scale=2.0)
    assert torch.equal(made.images, again.images)
    last = draw(pipeline, points=[(5, 5)], return_score_maps=[2], guidance_scale=2.0)
    assert [len(last.score_maps), len(last.score_maps[0])] == [1, len(made.score_maps[2])]
    assert torch.equal(last.score_maps[0][0]["image"], made.score_maps[2][0]["image"])


def test_prompts_are_encoded_once_per_call(pipeline):
    calls = []
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    draw(pipeline, guidance_scale=3.0)
    assert len(calls) == 1


def test_a_clean_reference_is_encoded_once_and_a_noised_one_at_each_step(pipeline, base):
    unet, calls = pipeline.unet, []
    encode = unet.encode_reference
    unet.encode_reference = lambda *a: calls.append(1) or encode(*a)
    draw(pipeline, reference=base, reference_noise="clean")
    assert len(calls) == 1
    draw(pipeline, reference=base, reference_noise="independent")
    assert len(calls) == 1 + 3


@pytest.mark.parametrize("noise", ["clean", "same", "independent"])
def test_the_annotations_start_noise_reaches_no_image_through_the_reference(pipeline_apart, base, noise):
    pipeline = pipeline_apart
    pipeline.scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++")
    before = draw(pipeline, reference=base, reference_noise=noise)
    prepare = pipeline.prepare_noise

    def other_annotation(*given):
        image, annotation = split(prepare(*given))
        return join(image, annotation.flip(-1))

    pipeline.prepare_noise = other_annotation
    after = draw(pipeline, reference=base, reference_noise=noise)
    assert not torch.equal(before.float_masks, after.float_masks)
    assert torch.equal(before.images, after.images)


def test_noise_for_the_reference_is_drawn_after_all_that_the_other_modes_draw_at_the_start(pipeline, base):
    conditions = []
    prepare = pipeline.prepare
    pipeline.prepare = lambda *given: conditions.append(prepare(*given)) or conditions[-1]
    for noise in ("clean", "independent"):
        draw(pipeline, reference=base, reference_noise=noise)
    clean, independent = conditions
    assert torch.equal(clean.noise, independent.noise)
    assert clean.reference_noise is None
    for domain in split(independent.noise):
        assert not torch.equal(independent.reference_noise, domain)


def test_the_empty_prompt_of_guidance_has_no_word_that_names_the_defect(pipeline):
    _, marks = pipeline.encode_prompt(["a photo of a bottle with crack"] * 2, ["crack"] * 2, True)
    assert not marks[:2].any()
    assert torch.equal(marks[2:].sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"prompt": []}, "no prompt given"),
        ({"base": [None, None]}, "base holds 2 for 1 prompts"),
        ({"start": "base"}, "need a base image and a raw mask"),
        ({"points": [(20, 2)]}, "outside the 16 x 16 image"),
        ({"boxes": [(4, 4, 4, 9)]}, "must be"),
        ({"points": [(2, 2)], "control_mask": np.ones((16, 16))}, "say the same thing"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 prompts"),
        ({"size": (18, 16)}, "multiples of 4"),
        ({"reference": np.zeros((32, 32, 3), np.uint8), "size": (16, 16)}, "give them one size"),
        ({"reference": "photo.png"}, "reference"),
        ({"strength": 0.0}, "strength"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(pipeline, named, message):
    prompt = named.pop("prompt", "a photo of a bottle with broken large")
    with pytest.raises(ValueError, match=message):
        draw(pipeline, prompt, **named)


def test_a_saved_pipeline_draws_the_same_pair(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert torch.equal(draw(DHDiffPipeline.from_pretrained(tmp_path)).images, draw(pipeline).images)


def test_in_bf16_a_pair_differs_a_little_and_comes_in_fp32(pipeline, tmp_path, base):
    pipeline.save_pretrained(tmp_path)
    quick = DHDiffPipeline.from_pretrained(tmp_path).speed_up("bf16")
    exact, near = (draw(p, reference=base).images for p in (pipeline, quick))
    assert near.dtype == torch.float32
    difference = (near - exact).abs()
    assert 0 < difference.mean() < 0.005
    assert (difference > 0.1).float().mean() < 0.01, "weights are random: a pixel may jump, but few"


@pytest.mark.slow
def test_compiled_a_pair_is_the_same(pipeline, tmp_path, base):
    pipeline.save_pretrained(tmp_path)
    compiled = DHDiffPipeline.from_pretrained(tmp_path).speed_up(compiled=True)
    draws = [draw(p, reference=base, control_mask=base.convert("L")) for p in (pipeline, compiled)]
    torch.testing.assert_close(draws[1].images, draws[0].images, atol=1e-4, rtol=0)


def placed_on(base):
    raw, mask, image = np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), np.array(base)
    raw[2:14, 2:14] = mask[5:10, 5:10] = 255
    image[mask > 0] = 10
    return {"base": base, "raw_mask": raw, "placed": image, "placed_mask": mask, "start": "reference"}


@pytest.mark.parametrize("background", ["clean", "keep"])
def test_at_no_strength_what_was_placed_comes_back(pipeline, base, background):
    given = placed_on(base)
    made = draw(pipeline, **given, reference=given["placed"], background=background, strength=0)
    inside = torch.from_numpy(given["raw_mask"] > 0)
    pixels = torch.from_numpy(given["placed"]).permute(2, 0, 1) / 255
    torch.testing.assert_close(made.images[0][:, inside], pixels[:, inside], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(made.masks[0, 0].numpy() > 0, given["placed_mask"] > 0)


def test_the_further_it_is_noised_the_less_of_what_was_placed_is_left(pipeline, base):
    given = placed_on(base)
    pixels = torch.from_numpy(given["placed"]).permute(2, 0, 1) / 255
    made = [draw(pipeline, **given, strength=s, num_inference_steps=10).images[0] for s in (0.1, 0.5, 1.0)]
    gaps = [(images - pixels).abs().mean() for images in made]
    assert gaps == sorted(gaps)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), DPMSolverMultistepScheduler(algorithm_type="dpmsolver++"),
                  DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")]
)  # fmt: skip
@pytest.mark.parametrize("background", ["clean", "keep"])
def test_a_pair_joins_at_its_own_step_whatever_the_strengths_of_its_company(pipeline, base, scheduler, background):
    pipeline.scheduler = scheduler
    words, given = "a photo of a bottle with crack", placed_on(base) | {"background": background, "reference": base}
    named = {"reference_noise": "independent", "num_inference_steps": 6}
    together = draw(pipeline, [words] * 3, **given, **named, strength=[0.9, 0.4, 0.0], seed=4)
    for at, strength in enumerate((0.9, 0.4, 0.0)):
        alone = draw(pipeline, words, **given, **named, strength=strength, seed=4 + at)
        torch.testing.assert_close(together.images[at], alone.images[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.float_masks[at], alone.float_masks[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"placed": None}, "give placed and placed_mask"),
        ({"strength": -0.1}, r"strength = -0\.1"),
        ({"strength": [0.5, 0.5]}, "2 strengths for 1 prompts"),
        ({"placed": np.zeros((32, 32, 3), np.uint8)}, "give them one size"),
    ],
)
def test_a_start_from_the_reference_that_cannot_be_is_refused_in_words(pipeline, base, named, message):
    with pytest.raises(ValueError, match=message):
        draw(pipeline, **{**placed_on(base), "size": (16, 16), **named})
