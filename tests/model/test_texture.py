import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch.nn import functional

from dhdiff_ray.model.domains import join, split, zero_init
from dhdiff_ray.model.latents import decode
from dhdiff_ray.model.texture import NUGGET, DefectLook, GaussianTexture

SIDE = 8


def striped(count, side=SIDE):
    """Latents whose columns hang together, and whose two channels do."""
    noise = torch.randn((count, 2, side + 4, side + 2), generator=torch.Generator().manual_seed(0))
    smooth = functional.avg_pool2d(noise, (5, 3), stride=1) * 4
    return torch.stack([smooth[:, 0], 0.8 * smooth[:, 0] + 0.6 * smooth[:, 1]], 1)


@pytest.fixture(scope="module")
def texture():
    texture = GaussianTexture(2, SIDE * 3 // 2)
    texture.fit(striped(400))
    return texture


def region_of(count=1):
    region = torch.zeros(2 * count, 1, SIDE, SIDE)
    region[..., 2:6, 3:] = 1
    return region


def drawn(texture, white, region):
    noise = torch.zeros(2 * len(white), 2, SIDE, SIDE)
    return split(texture.draw(noise, white, region))[0]


def unit_draws(texture, region):
    """What each value of the white noise does: (white values, c h w)."""
    units = torch.eye(2 * texture.side**2).view(-1, 2, texture.side, texture.side)
    parts = [drawn(texture, some, region.repeat(len(some), 1, 1, 1)) for some in units.split(64)]
    return torch.cat(parts).flatten(1).double()


@pytest.fixture(scope="module")
def covariance(texture):
    """(c h w, c h w), of surfaces of which nothing is known."""
    reach = unit_draws(texture, torch.ones(2, 1, SIDE, SIDE))
    return reach.T @ reach


def test_surfaces_have_the_second_moments_of_the_latents_they_were_fitted_to(covariance):
    z = striped(4000)
    moments = covariance.view(2, SIDE, SIDE, 2, SIDE, SIDE)
    for one, other, down, right in ((0, 0, 0, 0), (1, 1, 0, 0), (0, 1, 0, 0), (0, 0, 2, 0), (0, 0, 0, 1), (1, 0, 1, 1)):
        real = (z[:, one, : SIDE - down, : SIDE - right] * z[:, other, down:, right:]).mean()
        assert moments[one, 3, 3, other, 3 + down, 3 + right] == pytest.approx(float(real), abs=0.3), (down, right)
    assert moments[0, 3, 3, 0, 5, 3] > 2 * moments[0, 3, 3, 0, 3, 5].abs(), "stripes go down"


def test_the_mean_and_the_noise_are_those_of_the_conditional_gaussian_in_float64(texture, covariance, monkeypatch):
    monkeypatch.setattr("dhdiff_ray.model.texture.SOLVED", 1e-8)
    region = region_of()
    unknown = region[0].expand(2, -1, -1).flatten().bool()
    known = ~unknown
    nugget = NUGGET * float((texture.root**2).sum((-1, -2)).mean())  # that share of the mean power
    gain = covariance[unknown][:, known] @ torch.linalg.inv(
        covariance[known][:, known] + nugget * torch.eye(int(known.sum()))
    )

    z = striped(1)
    z = z - (z * (1 - region[:1])).sum((2, 3), keepdim=True) / (1 - region[:1]).sum()
    mean = split(texture.mean(join(z, z), region))[0].flatten().double()
    torch.testing.assert_close(mean[unknown], gain @ z.flatten().double()[known], atol=1e-3, rtol=1e-3)

    reach = unit_draws(texture, region)
    left = covariance[unknown][:, unknown] - gain @ covariance[known][:, unknown]
    torch.testing.assert_close((reach.T @ reach)[unknown][:, unknown], left, atol=2 * nugget, rtol=0)
    assert reach[:, known].square().sum(0).max() < nugget < left.diagonal().min(), "nothing is left where it is known"


def test_stopping_early_costs_less_than_a_fiftieth_of_the_deviation(texture, monkeypatch):
    z, region = striped(1), region_of()
    early = texture.mean(join(z, z), region)
    monkeypatch.setattr("dhdiff_ray.model.texture.SOLVED", 1e-10)
    change = (texture.mean(join(z, z), region) - early) * region
    assert 0 < change.abs().max() < z.std() / 50


def test_what_is_to_be_drawn_and_what_annotations_hold_does_not_reach_the_mean(texture):
    z, region = striped(4), region_of(2)
    mean = texture.mean(z, region)
    torch.testing.assert_close(texture.mean(z + 100 * region, region), mean, atol=1e-3, rtol=1e-3)
    assert not split(mean)[1].any()


def test_a_brighter_product_has_a_mean_as_much_brighter(texture):
    z, region = striped(2), region_of()
    change = split(texture.mean(z + 5, region) - texture.mean(z, region))[0]
    torch.testing.assert_close(change, torch.full_like(change, 5.0))


def test_where_nothing_is_known_there_is_no_mean_and_where_all_is_no_noise(texture):
    assert not texture.mean(striped(2), torch.ones(2, 1, SIDE, SIDE)).any()
    white = torch.randn(1, 2, texture.side, texture.side)
    assert drawn(texture, white, torch.zeros(2, 1, SIDE, SIDE)).abs().mean() < 0.1


def test_annotations_keep_their_noise(texture):
    noise = torch.randn(2, 2, SIDE, SIDE)
    made = texture.draw(noise, torch.randn(1, 2, texture.side, texture.side), region_of())
    assert torch.equal(split(made)[1], split(noise)[1])


def test_before_it_is_fitted_noise_is_white_and_latents_too_large_are_refused():
    texture = GaussianTexture(2, 12)
    white = torch.randn(1, 2, 12, 12)
    torch.testing.assert_close(drawn(texture, white, torch.ones(2, 1, SIDE, SIDE)), white[..., :SIDE, :SIDE])
    with pytest.raises(ValueError, match="larger than the 8"):
        texture.white_shape((8, 9))


@pytest.fixture
def textured(pipeline):
    texture = GaussianTexture(12, 12)
    texture.fit(torch.randn((50, 12, 8, 8), generator=torch.Generator().manual_seed(0)).cumsum(2))
    pipeline.unet.texture = texture
    pipeline.scheduler = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", timestep_spacing="trailing", prediction_type="v_prediction"
    )
    return pipeline


def pair_on(pipeline, brightness, **named):
    raw = torch.zeros(1, 1, 16, 16)
    raw[..., 4:12, 4:12] = 1
    base = torch.linspace(-0.1, 0.1, 16).expand(1, 3, 16, 16) + brightness
    told = {"defect": "crack", "seed": 1, "base": base, "raw_mask": raw, "background": "clean", "output_type": "pt"}
    return pipeline(**{**told, **named}), raw, base / 2 + 0.5


def test_the_base_stays_to_the_pixel_outside_the_raw_mask(textured):
    made, raw, base = pair_on(textured, 0.0)
    assert torch.equal((made.images * (1 - raw)), base * (1 - raw))
    assert not torch.equal(made.images, base)
    assert not (made.masks * (1 - raw)).any()


def test_a_network_that_answers_nothing_draws_a_surface_as_bright_as_the_product(textured):
    zero_init(textured.unet.backbone.conv_out)

    def inside(brightness):
        seen = []  # latents, where nothing is cut off
        pair_on(textured, brightness, callback_on_step_end=lambda *about: seen.append(about[-1]["latents"]))
        return decode(textured.vae, split(seen[-1])[0])[..., 4:12, 4:12]

    torch.testing.assert_close(inside(0.3) - inside(-0.3), torch.full((1, 3, 8, 8), 0.6), atol=1e-3, rtol=0)


def test_the_callback_sees_latents_that_can_be_decoded_and_may_give_them_back(textured):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append(pipe.decode_latents(tensors["latents"])[0])
        return tensors

    made, *_ = pair_on(textured, 0.0, callback_on_step_end=look)
    inside = made.images[..., 7:9, 7:9]  # where nothing is blended
    assert ((inside > 0) & (inside < 1)).float().mean() > 0.5, "pixels that are cut off would tell nothing"
    torch.testing.assert_close(seen[-1][..., 7:9, 7:9], inside, atol=1e-4, rtol=0)
    torch.testing.assert_close(made.images, pair_on(textured, 0.0)[0].images, atol=1e-3, rtol=0)


def test_how_a_defect_is_expected_to_look_changes_the_image_inside_the_raw_mask_and_no_mask(textured):
    without, raw, base = pair_on(textured, 0.0)
    textured.unet.look = DefectLook(12, 8)
    same, *_ = pair_on(textured, 0.0)
    assert torch.equal(same.images, without.images), "not fitted yet"
    torch.nn.init.normal_(textured.unet.look.weight, std=0.2)
    made, *_ = pair_on(textured, 0.0, num_inference_steps=1)
    torch.nn.init.zeros_(textured.unet.look.weight)
    plain, *_ = pair_on(textured, 0.0, num_inference_steps=1)
    assert torch.equal(made.images * (1 - raw), base * (1 - raw))
    assert (made.images - plain.images).abs().max() > 0.01
    torch.testing.assert_close(made.masks, plain.masks)  # in one step nothing of it comes back


def test_a_pair_is_the_same_alone_and_in_company(textured):
    alone, raw, base = pair_on(textured, 0.0)
    both, *_ = pair_on(
        textured, 0.0, num_pairs=2, base=(base * 2 - 1).repeat(2, 1, 1, 1), raw_mask=raw.repeat(2, 1, 1, 1)
    )
    torch.testing.assert_close(both.images[:1], alone.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("background", ["keep", "free"])
def test_without_a_clean_background_pairs_are_drawn_too(textured, background):
    made, *_ = pair_on(textured, 0.0, background=background)
    assert made.images.isfinite().all()


def test_a_scheduler_that_would_add_white_noise_is_refused_and_ddim_is_not(textured):
    textured.scheduler = DDPMScheduler(prediction_type="v_prediction")
    with pytest.raises(ValueError, match="use DPMSolverMultistepScheduler or DDIMScheduler"):
        pair_on(textured, 0.0)
    textured.scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    assert pair_on(textured, 0.0)[0].images.isfinite().all()


def test_noise_and_mean_from_one_solution_are_those_of_two(texture):
    generator = torch.Generator().manual_seed(1)
    white = torch.randn((2, *texture.white_shape((SIDE, SIDE))), generator=generator)
    noise, latents = torch.randn((2, 4, 2, SIDE, SIDE), generator=generator)
    region = torch.cat([region_of(), region_of().flip(3)])[[0, 2, 1, 3]]
    noised, mean = texture.draw_and_mean(noise, white, latents, region)
    torch.testing.assert_close(noised, texture.draw(noise, white, region))
    torch.testing.assert_close(mean, texture.mean(latents, region))
