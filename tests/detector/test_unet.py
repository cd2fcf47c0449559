import pytest
import torch

from dhdiff_ray.detector.draem import Draem
from dhdiff_ray.detector.unet import Localiser, build, from_bytes, to_bytes


def test_one_logit_per_pixel():
    assert Localiser(4)(torch.zeros(2, 3, 24, 40)).shape == (2, 1, 24, 40)


def test_draems_network_has_as_many_weights_as_theirs():
    with torch.device("meta"):
        model = Draem(64)
    assert sum(weights.numel() for weights in model.parameters()) == 28_372_418


@pytest.mark.parametrize("network", ["small", "draem"])
def test_weights_survive_the_way_through_bytes(network):
    model = build(network, 4).eval()
    again = from_bytes(to_bytes(model))
    images = torch.randn(1, 3, 32, 32)
    assert type(again) is type(model)
    assert model(images).shape == (1, 1, 32, 32)
    assert torch.equal(model(images), again(images))
    assert not again.training


@pytest.mark.parametrize("data", [b"", b"not weights at all"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="not a localiser"):
        from_bytes(data)
