import pytest
import torch

from dhdiff_ray.detector.unet import Localiser


def test_one_logit_per_pixel():
    assert Localiser(4)(torch.zeros(2, 3, 24, 40)).shape == (2, 1, 24, 40)


def test_weights_survive_the_way_through_bytes():
    model = Localiser(4).eval()
    again = Localiser.from_bytes(model.to_bytes())
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(images), again(images))
    assert not again.training


@pytest.mark.parametrize("data", [b"", b"not weights at all"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="not a localiser"):
        Localiser.from_bytes(data)
