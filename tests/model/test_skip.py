import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional

from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.skip import ANCHORS, FilterSkip
from dhdiff_ray.model.unet import DHDiffUNet


def test_filters_answer_alone_at_their_timestep_and_are_mixed_between_two():
    torch.manual_seed(0)
    skip = FilterSkip(3, 5, timesteps=ANCHORS)  # an anchor at each timestep
    for filters in (skip.image, skip.annotation):
        torch.nn.init.normal_(filters.weight)
    image, annotation = torch.randn(2, 2, 3, 6, 7)

    def by_hand(domain, filters, anchor):
        return functional.conv2d(domain, filters.weight[anchor * 3 : (anchor + 1) * 3], padding=2)

    both = split(skip(join(image, annotation), torch.tensor([2.0, 4.25])))
    for domain, filters, got in zip((image, annotation), (skip.image, skip.annotation), both, strict=True):
        torch.testing.assert_close(got[0], by_hand(domain[0], filters, 2), atol=1e-5, rtol=1e-4)
        mixed = 0.75 * by_hand(domain[1], filters, 4) + 0.25 * by_hand(domain[1], filters, 5)
        torch.testing.assert_close(got[1], mixed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_fitted_filters_predict_as_well_as_regression_on_noised_latents(prediction):
    torch.manual_seed(0)
    smooth = functional.avg_pool2d(torch.randn(40, 2, 18, 18), 3, stride=1) * 3  # neighbours are correlated
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    skip = FilterSkip(2, 3)
    skip.fit(smooth, scheduler.alphas_cumprod, prediction)
    for anchor in (1, 4, 6):
        t = round(anchor * skip.spacing)
        a, s = scheduler.alphas_cumprod[t] ** 0.5, (1 - scheduler.alphas_cumprod[t]) ** 0.5
        noise = torch.randn_like(smooth)
        target = noise if prediction == "epsilon" else a * noise - s * smooth
        noised = a * smooth + s * noise
        kernel = skip.image.weight[anchor * 2 : (anchor + 1) * 2]
        patches = functional.unfold(noised, 3).transpose(1, 2).flatten(0, 1)
        wanted = target[:, :, 1:-1, 1:-1].flatten(2).transpose(1, 2).flatten(0, 1)
        regression = patches @ torch.linalg.lstsq(patches, wanted).solution
        least = (regression - wanted).square().mean()
        got = (functional.conv2d(noised, kernel) - target[:, :, 1:-1, 1:-1]).square().mean()
        assert least <= got < 1.02 * least
        assert got < 0.97 * wanted.square().mean()


def test_with_filters_the_network_starts_as_without_and_they_learn(backbone_config):
    torch.manual_seed(0)
    placed: dict = {"dda_encoder": (0, 1), "dda_decoder": (0,), "ssm_encoder": (0, 1), "ssm_decoder": (0,)}
    plain = DHDiffUNet(backbone_config, **placed)
    unet = DHDiffUNet(backbone_config, **placed, filter_skip=5)
    unet.load_state_dict(plain.state_dict(), strict=False)
    inputs = (torch.randn(4, 12, 8, 8), torch.tensor([10, 700]), torch.randn(2, 5, 16))
    assert torch.equal(unet(*inputs), plain(*inputs))
    own = {name.split(".")[1] for name in unet.new_parameters if name.startswith("skip_filters.")}
    assert own == {"image", "annotation"}
    (unet(*inputs) - torch.randn(4, 12, 8, 8)).square().mean().backward()
    assert unet.skip_filters.image.weight.grad.any()
    assert unet.skip_filters.annotation.weight.grad.any()
