import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import decode
from dhdiff_ray.model.prior import FAR, surroundings_mean


@pytest.fixture
def region():
    region = torch.zeros(2, 1, 6, 5)
    region[0, :, 1:4, 1:4] = 1
    region[1, :, :, 2:] = 1
    return join(region, region)


@pytest.fixture
def latents():
    return torch.randn((4, 3, 6, 5), generator=torch.Generator().manual_seed(0))


def test_the_mean_is_that_of_a_loop_over_all_known_positions(latents, region):
    mean, _ = split(surroundings_mean(latents, region, 1.5))
    for pair in range(2):
        for y, x in np.ndindex(6, 5):
            total, weights = torch.zeros(3, dtype=torch.float64), 0.0
            for v, u in np.ndindex(6, 5):
                if region[pair, 0, v, u] == 0:
                    weight = np.prod([max(np.exp(-(d**2) / (2 * 1.5**2)), FAR) for d in (y - v, x - u)])
                    total += weight * latents[pair, :, v, u]
                    weights += weight
            torch.testing.assert_close(mean[pair, :, y, x].double(), total / weights, rtol=1e-5, atol=1e-6)


def test_what_is_to_be_drawn_and_what_annotations_hold_does_not_reach_the_mean(latents, region):
    mean = surroundings_mean(latents, region, 2.0)
    changed = surroundings_mean(latents + 100 * region, region, 2.0)
    torch.testing.assert_close(changed, mean, rtol=1e-5, atol=1e-5)
    assert not split(mean)[1].any()


def test_deep_inside_a_large_raw_mask_the_mean_is_finite_and_that_of_all_that_is_known():
    latents, region = torch.full((2, 1, 64, 64), 3.0), torch.ones(2, 1, 64, 64)
    region[..., 0] = 0
    torch.testing.assert_close(split(surroundings_mean(latents, region, 1.0))[0], torch.full((1, 1, 64, 64), 3.0))


def test_where_nothing_around_is_known_there_is_no_mean(latents):
    assert not surroundings_mean(latents, torch.ones(4, 1, 6, 5), 2.0).any()


def pair_on(pipeline, brightness, radius, **named):
    # Few pixels are cut off at black and white, where nothing could be told.
    pipeline.scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    pipeline.register_to_config(defaults={**pipeline.config["defaults"], "prior_mean_radius": radius})
    pattern = torch.linspace(-0.1, 0.1, 16).expand(1, 3, 16, 16)
    raw = torch.zeros(1, 1, 16, 16)
    raw[..., 4:12, 4:12] = 1
    told = {"defect": "crack", "seed": 1, "base": pattern + brightness, "raw_mask": raw, "num_inference_steps": 3}
    return pipeline(**{**told, "background": "clean", "output_type": "pt", **named})


def test_relative_to_its_surroundings_a_defect_is_as_much_brighter_as_the_product(pipeline):
    def inside(brightness, radius):
        seen = []  # latents, where nothing is cut off
        pair_on(pipeline, brightness, radius, callback_on_step_end=lambda *about: seen.append(about[-1]["latents"]))
        return decode(pipeline.vae, split(seen[-1])[0])[..., 4:12, 4:12]

    def change(radius):
        return inside(0.3, radius) - inside(-0.3, radius)

    torch.testing.assert_close(change(2.0), torch.full((1, 3, 8, 8), 0.6), atol=1e-3, rtol=0)
    assert (change(0.0) - 0.6).abs().mean() > 0.1, "drawn as they are, the network would have to learn it"


def test_the_callback_sees_latents_that_can_be_decoded_and_may_give_them_back(pipeline):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append(pipe.decode_latents(tensors["latents"])[0])
        return tensors

    made = pair_on(pipeline, 0.3, 2.0, callback_on_step_end=look)
    inside = made.images[..., 4:12, 4:12]
    assert ((inside > 0) & (inside < 1)).float().mean() > 0.5, "pixels that are cut off would tell nothing"
    torch.testing.assert_close(seen[-1][..., 4:12, 4:12], inside, atol=1e-5, rtol=0)
    torch.testing.assert_close(made.images, pair_on(pipeline, 0.3, 2.0).images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("background", ["keep", "free"])
def test_without_a_clean_background_there_is_nothing_to_be_relative_to(pipeline, background):
    with_mean, without = (pair_on(pipeline, 0.3, radius, background=background).images for radius in (2.0, 0.0))
    assert torch.equal(with_mean, without)
