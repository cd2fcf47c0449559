"""The published networks with random weights in their real classes, against the packages' own procedures."""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features.choose import open_classifier, open_perceiver
from dhdiff_ray.metrics.features.published import Inception, Lpips, lpips_network, lpips_weights
from dhdiff_ray.metrics.features.weights import FILES
from dhdiff_ray.metrics.ic_lpips import ic_lpips
from dhdiff_ray.metrics.inception_score import InceptionScore
from dhdiff_ray.metrics.profiles import PROFILES

SIDE = 32
BACKBONES = ("vgg", "alex", "squeeze")


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: lpips_network(name, None) for name in BACKBONES}


@pytest.fixture(scope="module")
def pictures():
    """Ten made images around three of four real ones: one cluster is large, one has one image, one none."""
    draw = np.random.default_rng(3)
    real = [draw.integers(0, 256, (SIDE, SIDE, 3)) // 2 + 60 * (i % 3) for i in range(4)]
    near = [0] * 5 + [1] * 4 + [2]
    made = [real[at] + draw.normal(0, 12 + 3 * i, (SIDE, SIDE, 3)) for i, at in enumerate(near)]
    as_bytes = lambda pixels: np.clip(pixels, 0, 255).astype(np.uint8)  # noqa: E731
    return {f"{i:03d}": as_bytes(p) for i, p in enumerate(made)}, {f"r{i}": as_bytes(p) for i, p in enumerate(real)}


@pytest.fixture(scope="module")
def pairwise(networks, pictures):
    """Distances by the package's own forward over pairs of images."""
    made, real = pictures
    found = {}

    def distances(backbone):
        if backbone not in found:
            to_real = list(itertools.product((False, True), made, real))
            among = list(itertools.combinations(made, 2))
            left = [made[a] for _, a, _ in to_real] + [made[a] for a, _ in among]
            right = [real[b] for _, _, b in to_real] + [made[b] for _, b in among]
            ones, others = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float() for x in (left, right))
            # The bug of two peers: real images keep their 0..255.
            raw = torch.tensor([raw for raw, _, _ in to_real] + [False] * len(among))[:, None, None, None]
            with torch.inference_mode():
                others = torch.where(raw, others, others / 127.5 - 1)
                values = networks[backbone](ones / 127.5 - 1, others).flatten().tolist()
            count = len(to_real)
            found[backbone] = (
                dict(zip(to_real, values[:count], strict=True)),
                dict(zip(among, values[count:], strict=True)),
            )
        return found[backbone]

    return distances


def by_definition(profile, made, real, centre, among, draws):
    """What each peer's script does, over all pairs; ``draws`` says who is kept of a large cluster."""
    clusters = {name: [] for name in real}
    for name in made:
        best = None
        for other in real:  # a tie goes to the later one
            if best is None or centre[profile.raw_centres, name, other] <= centre[profile.raw_centres, name, best]:
                best = other
        clusters[best].append(name)
    values = []
    for other, own in clusters.items():
        kept = draws(other, own)
        if len(kept) >= 2:
            values.append(np.mean([among[pair] for pair in itertools.combinations(kept, 2)]))
        elif profile.small == "zero":
            values.append(0.0)
    return np.mean(values), [len(own) for own in clusters.values()]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", PROFILES)
def test_ic_lpips_is_the_packages_own_distance_pair_by_pair(name, backbone, networks, pictures, pairwise):
    made, real = pictures
    profile = PROFILES[name]
    if profile.cap:
        profile = replace(profile, cap=3)
    perceiver = Lpips.of(networks[backbone], backbone, "random", SIDE)
    score = ic_lpips(perceiver, real, list(made), made.__getitem__, profile, seeds=(4,))
    # The draw itself is ours; the rule of how many is the profile's.
    from dhdiff_ray.metrics.ic_lpips import _draws

    draws = lambda centre, own: _draws(own, centre, profile, (4,))[0]  # noqa: E731
    expected, sizes = by_definition(profile, made, real, *pairwise(backbone), draws)
    assert score.value == pytest.approx(expected, rel=1e-5)
    assert score.conditions["cluster_sizes"] == sizes
    assert score.metric == "ic_lpips_own"
    if profile.draw == "first":
        assert draws("r", sorted(made)) == tuple(sorted(made)[:3])


def test_negative_linear_weights_are_refused(networks, monkeypatch):
    negative = [-lpips_weights(networks["squeeze"])[0]]
    monkeypatch.setattr("dhdiff_ray.metrics.features.published.lpips_weights", lambda _: negative)
    with pytest.raises(ValueError, match="negative"):
        lpips_network("squeeze", trunk(networks["squeeze"]))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights whose classes differ between images, in the layout of the published file."""

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *_args, **_kwargs):
            """Keep the random weights."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Unloaded("x", ["logits_unbiased"], feature_extractor_weights_path=str(folder / "empty.pth"))
        weights = network.state_dict()
        for name, tensor in weights.items():
            if name.endswith("conv.weight"):  # so that an image's signal survives the depth
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
        weights["fc.weight"] *= 8
    torch.save(weights, folder / "own.pth")
    return folder / "own.pth"


def test_the_inception_score_is_torch_fidelitys_own_on_the_same_folder(inception_file, tmp_path):
    draw = np.random.default_rng(0)
    images = {}
    for index in range(5):
        image = draw.integers(0, 60 + 40 * index, (40, 40, 3)).astype(np.uint8)
        images[f"{index:03d}.png"] = image
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    theirs = calculate_metrics(
        input1=str(tmp_path),
        isc=True,
        isc_splits=2,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=str(inception_file),
    )
    network = Inception(ScoreConfig(inception_file=str(inception_file)))
    metric = InceptionScore(network, list(images), splits=2)
    probabilities, pooled = network.classify(np.stack(list(images.values())))
    score = metric.value(metric.observe(list(images), probabilities))
    assert score.metric == "is_own"
    assert score.value > 1.01
    assert score.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert score.conditions["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-5)
    assert probabilities.shape == (5, 1008) and probabilities.dtype == np.float64
    assert pooled.shape == (5, 2048)


def test_a_backbone_runs_from_a_file_of_ones_own(networks, tmp_path):
    own = tmp_path / "mine.pth"
    torch.save(trunk(networks["squeeze"]), own)
    perceiver = open_perceiver(ScoreConfig(backbone="squeeze", backbone_file=str(own)))
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    assert perceiver.perceptual(image).ndim == 2
    assert perceiver.metric_name("ic_lpips") == "ic_lpips_own"
    assert "mine.pth" in perceiver.perceiver
    assert len(perceiver.digest) == 16


def test_weights_of_another_architecture_are_refused(networks, inception_file, tmp_path):
    own = tmp_path / "mine.pth"
    torch.save(trunk(networks["alex"]), own)
    with pytest.raises(ValueError, match="another architecture than squeeze"):
        open_perceiver(ScoreConfig(backbone="squeeze", backbone_file=str(own)))
    with pytest.raises(ValueError, match="another network than torch-fidelity's Inception"):
        open_classifier(ScoreConfig(inception_file=str(own)))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    own = tmp_path / "mine.pth"
    torch.save({"features.0.weight": Trap()}, own)
    with pytest.raises(ValueError, match="more than tensors"):
        open_perceiver(ScoreConfig(backbone="squeeze", backbone_file=str(own)))
    assert not (tmp_path / "sprung").exists()


def test_a_published_name_with_another_hash_is_refused(networks, tmp_path):
    torch.save(trunk(networks["squeeze"]), tmp_path / FILES["squeeze"].file)
    with pytest.raises(ValueError, match=r"SHA-256 begins with \w{8}, expected b8a52dc0"):
        open_perceiver(ScoreConfig(backbone="squeeze", weights_dir=str(tmp_path)))


def test_a_file_of_ones_own_that_is_not_there_names_the_flag(tmp_path):
    with pytest.raises(ValueError, match=r"score\.inception_file=FILE"):
        open_classifier(ScoreConfig(inception_file=str(tmp_path / "no.pth")))


def trunk(network):
    """A backbone's weights under torchvision's names."""
    return {f"features.{name.split('.', 1)[1]}": tensor for name, tensor in network.net.state_dict().items()}
