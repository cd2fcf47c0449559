"""How a defect is expected to look, given its mask (ours)."""

import pytest
import torch
from torch.nn import functional

from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.texture import RIDGE, DefectLook

CHANNELS, SIZE = 3, 8


def real_defects(count=40):
    """Latents of masks, 0 but for a random rectangle, where the defect is."""
    generator = torch.Generator().manual_seed(0)
    defects = torch.zeros(count, 1, SIZE, SIZE)
    for defect in defects:
        top, left, height, width = torch.randint(1, 4, (4,), generator=generator).tolist()
        defect[:, top : top + height, left : left + width] = 1
    empty = torch.linspace(-1, 1, CHANNELS)[:, None, None].expand(-1, SIZE, SIZE).clone()
    latents = torch.randn((count, CHANNELS, SIZE, SIZE), generator=generator) * defects + empty
    return latents, defects, empty


@pytest.fixture
def look():
    latents, defects, empty = real_defects()
    look = DefectLook(CHANNELS, SIZE)
    look.fit(functional.conv2d(latents - empty, torch.ones(CHANNELS, CHANNELS, 3, 3) / 9, padding=1), latents,
             defects, empty)  # fmt: skip
    return look


def test_the_filter_is_that_of_a_ridge_regression_in_which_each_defect_counts_alike():
    latents, defects, empty = real_defects()
    change = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    look = DefectLook(CHANNELS, SIZE)
    look.fit(change, latents, defects, empty)
    power, shared = torch.zeros(27, 27), torch.zeros(27, CHANNELS)
    for z, defect, answer in zip(latents - empty, defects, change, strict=True):
        near = [
            (y, x)
            for y in range(SIZE)
            for x in range(SIZE)
            if defect[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
        ]
        for y, x in near:
            seen = functional.pad(z, (1, 1, 1, 1))[:, y : y + 3, x : x + 3].flatten()
            power += torch.outer(seen, seen) / len(near)
            shared += torch.outer(seen, answer[:, y, x]) / len(near)
    wanted = torch.linalg.solve(power + RIDGE * power.diagonal().mean() * torch.eye(27), shared)
    torch.testing.assert_close(look.weight.flatten(1), wanted.T, atol=1e-4, rtol=1e-4)


def test_an_image_is_expected_to_look_as_its_own_predicted_mask_says_and_outside_the_region_nothing_changes(look):
    latents, defects, empty = real_defects(2)
    noise, image = torch.randn((2, *latents.shape), generator=torch.Generator().manual_seed(2))
    region = functional.max_pool2d(defects, 3, 1, 1)
    for alpha in (torch.tensor(0.3), torch.tensor([0.3, 0.3, 0.3, 0.3])):
        noised = join(image, 0.3**0.5 * latents + 0.7**0.5 * noise)
        velocity = join(torch.zeros_like(image), 0.3**0.5 * noise - 0.7**0.5 * latents)
        changed, annotation = split(look(velocity, noised, join(region, region), alpha))
        expected = functional.conv2d((latents - empty) * region, look.weight, padding=1) * region
        torch.testing.assert_close(changed, -(0.7**0.5) * expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(annotation, split(velocity)[1])


def test_what_the_image_is_told_teaches_the_annotation_nothing(look):
    latents, defects, _ = real_defects(1)
    velocity = torch.zeros(2, CHANNELS, SIZE, SIZE, requires_grad=True)
    region = join(defects, defects)
    split(look(velocity, join(latents, latents), region, torch.tensor(0.5)))[0].square().sum().backward()
    assert velocity.grad[0].any()
    assert not velocity.grad[1].any()


def test_latents_of_another_size_are_looked_at_too(look):
    wide = torch.randn(2, CHANNELS, SIZE + 2, SIZE)
    assert look(wide, wide, torch.ones_like(wide[:, :1]), torch.tensor(0.5)).shape == wide.shape


def test_before_it_is_fitted_and_without_defects_it_answers_nothing():
    look, velocity = DefectLook(CHANNELS, SIZE), torch.randn(2, CHANNELS, SIZE, SIZE)
    region = torch.ones(2, 1, SIZE, SIZE)
    assert torch.equal(look(velocity, velocity, region, torch.tensor(0.5)), velocity)
    latents, defects, empty = real_defects(3)
    look.fit(latents, latents, torch.zeros_like(defects), empty)
    assert torch.equal(look(velocity, velocity, region, torch.tensor(0.5)), velocity)
