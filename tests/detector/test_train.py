import numpy as np
import pytest
import torch

from dhdiff_ray.config import DetectConfig
from dhdiff_ray.detector.evaluate import alignment, evaluate
from dhdiff_ray.detector.loss import GAMMA, localisation_loss
from dhdiff_ray.detector.train import train_localiser
from dhdiff_ray.detector.unet import to_bytes

QUICK = DetectConfig(
    steps=40, batch_size=8, learning_rate=1e-2, channels=4, network="small", loss="dice", decay="cosine"
)
SHORT = QUICK.model_copy(update={"steps": 3})


def test_a_localiser_finds_defects_it_never_saw(blobs, other_blobs):
    images, masks, normals = blobs
    model = train_localiser(images, masks, normals, QUICK, seed=0)
    found, truth, calm = other_blobs
    scores = evaluate(model, np.concatenate([found, calm]), np.concatenate([truth, np.zeros_like(truth)]))
    assert scores["pixel_ap"] > 0.9
    assert scores["image_auroc"] > 0.95
    judged = alignment(model, found, truth)
    assert judged["iou"] > 0.6
    assert judged["nonempty"] == 1
    # Masks that belong to other images are what the oracle is there to catch.
    assert alignment(model, found, np.roll(truth, 1, axis=0))["iou"] < 0.3


def test_the_seed_determines_the_weights_and_leaves_the_callers_generator_alone(blobs):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (to_bytes(train_localiser(*blobs, SHORT, seed=seed, device="cpu")) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


def test_every_step_is_told_with_its_loss(blobs):
    told = []
    train_localiser(*blobs, SHORT, seed=0, on_step=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [1, 2, 3]
    assert all(np.isfinite(loss) for _, loss in told)


def test_it_trains_without_normal_images(blobs):
    images, masks, normals = blobs
    assert train_localiser(images, masks, normals[:0], SHORT, seed=0).training is False


def test_nothing_to_train_on_names_the_remedy(blobs):
    images, masks, normals = blobs
    with pytest.raises(ValueError, match="submit synthesize"):
        train_localiser(images[:0], masks[:0], normals, SHORT, seed=0)


def test_masks_of_other_images_are_refused(blobs):
    images, masks, normals = blobs
    with pytest.raises(ValueError, match="do not belong together"):
        train_localiser(images, masks[:-1], normals, SHORT, seed=0)


def test_the_peers_recipe_learns_too(blobs, other_blobs):
    theirs = QUICK.model_copy(update={"network": "draem", "loss": "focal", "decay": "steps", "steps": 40})
    model = train_localiser(*blobs, theirs, seed=0)
    found, truth, calm = other_blobs
    scores = evaluate(model, np.concatenate([found, calm]), np.concatenate([truth, np.zeros_like(truth)]))
    assert scores["pixel_ap"] > 0.4


def test_the_best_judged_weights_are_kept_and_the_later_among_equals(blobs):
    config = QUICK.model_copy(update={"steps": 5, "judge_every": 2})
    seen = []

    def judge(model):
        seen.append(to_bytes(model))
        return [1.0, 3.0, 3.0][len(seen) - 1] if len(seen) < 3 else 2.0

    assert not model_training(train_localiser(*blobs, config, seed=0, judge=judge), seen[1])
    assert len(seen) == 3, "after steps 2 and 4 and after the last"


def model_training(model, expected):
    assert to_bytes(model) == expected
    return model.training


def test_focal_loss_by_hand():
    logits, target = torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    p = torch.sigmoid(logits)
    expected = (-((1 - p) ** GAMMA) * p.log()).mean()
    assert localisation_loss(logits, target, "focal").item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["dice", "focal"])
def test_the_loss_is_small_only_where_the_map_is_the_mask(kind):
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:5, 2:5] = 1
    right, empty, elsewhere = (target * 2 - 1) * 8, torch.full_like(target, -8.0), (target.roll(3, -1) * 2 - 1) * 8
    losses = [localisation_loss(logits, target, kind).item() for logits in (right, empty, elsewhere)]
    assert losses[0] < 0.1 < losses[1] < losses[2]
