import torch

from dhdiff_ray.model.latents import HaarTransform, image_to_mask, mask_to_image
from dhdiff_ray.model.loss import defect_loss, dh_loss


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


def test_the_loss_on_defects_is_that_of_a_loop_over_pairs_and_a_small_defect_counts_as_a_large_one():
    predicted, target = torch.randn((2, 6, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    defect = torch.zeros(3, 1, 8, 8)
    defect[0, 0, 2, 3] = 1
    defect[1, 0, 1:7] = 1
    images, annotations = (predicted - target).square().split(3)
    errors = [float(domain[i][:, defect[i, 0] > 0].mean()) for i in (0, 1) for domain in (images, annotations)]
    wanted = sum(errors) / 3 / 2
    torch.testing.assert_close(defect_loss(predicted, target, defect, 3), torch.tensor(wanted))
