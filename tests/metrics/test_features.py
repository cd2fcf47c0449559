import pytest

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features import open_features
from dhdiff_ray.metrics.published import INCEPTION_FILE, VGG_FILE


def test_standin_is_opened_without_files():
    features = open_features(ScoreConfig(features="standin"))
    assert features.name == "standin"
    assert features.metric_name("is") == "is_standin"


def test_missing_files_are_named_with_every_way_out(tmp_path):
    with pytest.raises(ValueError) as error:
        open_features(ScoreConfig(features="inception", weights_dir=str(tmp_path)))
    for part in (INCEPTION_FILE, VGG_FILE, str(tmp_path), "score.weights_dir=", "score.features=standin"):
        assert part in str(error.value)


def test_one_missing_file_is_named_alone(tmp_path):
    (tmp_path / INCEPTION_FILE).touch()
    with pytest.raises(ValueError, match=VGG_FILE) as error:
        open_features(ScoreConfig(features="inception", weights_dir=str(tmp_path)))
    assert INCEPTION_FILE not in str(error.value)


def test_the_hub_cache_is_where_files_are_looked_for_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="checkpoints"):
        open_features(ScoreConfig(features="inception"))
