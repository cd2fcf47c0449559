import pytest

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features.choose import check_files, open_classifier, open_perceiver
from dhdiff_ray.metrics.features.weights import FILES
from dhdiff_ray.metrics.profiles import profile_of

INCEPTION, VGG = FILES["inception"].file, FILES["vgg"].file


def test_standins_are_opened_without_files():
    config = ScoreConfig(features="standin")
    check_files(config)
    assert open_classifier(config).metric_name("is") == "is_standin"
    assert open_perceiver(config).metric_name("ic_lpips") == "ic_lpips_standin"


def test_missing_files_are_named_with_source_and_every_way_out(tmp_path):
    with pytest.raises(ValueError) as error:
        check_files(ScoreConfig(weights_dir=str(tmp_path)))
    ways = ("score.weights_dir=", "score.features=standin", "score.download=true", "https://download.pytorch.org/")
    for part in (INCEPTION, VGG, str(tmp_path), *ways):
        assert part in str(error.value)


def test_one_missing_file_is_named_alone(tmp_path):
    (tmp_path / INCEPTION).touch()
    with pytest.raises(ValueError, match=VGG) as error:
        check_files(ScoreConfig(weights_dir=str(tmp_path)))
    assert INCEPTION not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ({"profile": "dfmgan"}, "alexnet"),
        ({"backbone": "squeeze"}, "squeezenet1_1"),
        ({"metrics": ("ic_lpips",)}, "vgg16"),
    ],
)
def test_only_the_files_that_the_profile_and_the_metrics_need_are_asked_for(tmp_path, settings, file):
    (tmp_path / INCEPTION).touch()
    with pytest.raises(ValueError, match=file) as error:
        check_files(ScoreConfig(weights_dir=str(tmp_path), **settings))
    assert str(error.value).count(".pth (") == 1
    check_files(ScoreConfig(weights_dir=str(tmp_path), metrics=("is", "kid", "masks")))


def test_a_cluster_of_one_is_refused_and_a_size_of_ones_own_replaces_the_cap():
    assert profile_of(ScoreConfig(cluster_size=7)).cap == 7
    assert profile_of(ScoreConfig(cluster_size=7, profile="full")).cap is None
    with pytest.raises(ValueError, match="leaves no pair"):
        profile_of(ScoreConfig(cluster_size=1))


def test_the_hub_cache_is_where_files_are_looked_for_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="checkpoints"):
        open_classifier(ScoreConfig())


def test_small_networks_name_their_files(tmp_path):
    for open_it in (check_files, open_classifier, open_perceiver):
        with pytest.raises(ValueError, match="squeezenet1_0"):
            open_it(ScoreConfig(features="small", weights_dir=str(tmp_path)))
