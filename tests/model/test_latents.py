import torch

from dhdiff_ray.model.latents import HaarTransform, image_to_mask, mask_to_image
from dhdiff_ray.model.loss import SCALES, dh_loss, multiscale_loss


def test_haar_transform_loses_nothing_at_any_level():
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    for levels in (0, 1, 2):
        transform = HaarTransform.fitted(x, levels)
        z = transform.encode(x)
        assert z.shape == (2, transform.channels, 16 // transform.factor, 24 // transform.factor)
        torch.testing.assert_close(transform.decode(z), x, atol=1e-5, rtol=1e-5)


def test_fitted_means_have_a_standard_deviation_of_08_and_details_the_share_asked_for():
    x = torch.nn.functional.avg_pool2d(torch.randn(8, 3, 34, 34), 3, stride=1)
    for whitening, expected in ((0.0, None), (1.0, 0.8)):
        bands = HaarTransform.fitted(x, 1, whitening).encode(x).unflatten(1, (4, 3)).std(dim=(0, 2, 3, 4))
        torch.testing.assert_close(bands[0], torch.tensor(0.8), atol=1e-3, rtol=0)
        natural = HaarTransform(1).encode(x).unflatten(1, (4, 3)).std(dim=(0, 2, 3, 4))
        wanted = torch.full((4,), expected) if expected else natural * 0.8 / natural[0]
        torch.testing.assert_close(bands, wanted, atol=1e-3, rtol=0)


def test_transform_survives_saving(tmp_path):
    x = torch.rand(2, 3, 16, 16)
    transform = HaarTransform.fitted(x, 2)
    transform.save_pretrained(tmp_path)
    assert torch.equal(HaarTransform.from_pretrained(tmp_path).encode(x), transform.encode(x))


def test_a_mask_survives_being_an_image():
    mask = (torch.rand(2, 1, 8, 8) > 0.5).float()
    assert torch.equal(image_to_mask(mask_to_image(mask)), mask)


def test_eq8_loss_is_the_mean_squared_error_over_both_domains():
    predicted, target = torch.randn(2, 4, 3, 8, 8)
    loss, image, annotation = dh_loss(predicted, target)
    torch.testing.assert_close(loss, (predicted - target).square().mean())
    torch.testing.assert_close(image, (predicted - target)[:2].square().mean())
    torch.testing.assert_close((image + annotation) / 2, loss)


def test_the_loss_at_coarser_scales_is_that_of_a_loop_over_squares_and_sees_the_region_alone():
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn((2, 4, 3, 20, 18), generator=generator)  # two images, then their annotations
    region = (torch.rand((4, 1, 20, 18), generator=generator) > 0.4).float()
    region[2:] = region[:2]
    wanted = 0.0
    for side in SCALES:
        for image in range(2):
            for top in range(0, 20, side):
                for left in range(0, 18, side):
                    square = (slice(top, top + side), slice(left, left + side))
                    inside = region[image, 0][square] > 0
                    for channel in range(3):
                        error = (predicted - target)[image, channel][square][inside]
                        wanted += side * float(error.mean() ** 2) * len(error) if len(error) else 0.0
    wanted /= float(region[:2].sum()) * 3
    torch.testing.assert_close(multiscale_loss(predicted, target, region), torch.tensor(wanted / 2))
    elsewhere = predicted + (1 - region)
    torch.testing.assert_close(multiscale_loss(elsewhere, target, region), torch.tensor(wanted / 2))


def test_the_loss_at_coarser_scales_sees_brightness_and_no_fine_detail():
    target = torch.zeros(2, 1, 32, 32)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16).expand(2, 1, 32, 32)
    assert multiscale_loss(checks, target) == 0
    assert multiscale_loss(target + 1, target) == sum(SCALES) / 2
