"""Generator, scorer and detector refuse a run whose split does not match; no cluster is needed to say so."""

import json

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.registry import configured, open_dataset
from dhdiff_ray.data.split import SplitError, split_as
from dhdiff_ray.run.run import about_dataset, check_same_split, run_folder, stored_split


@pytest.fixture
def run(tmp_path):
    """run(*sets) -> the configuration of a run whose split was cut by thirds."""
    open_dataset("mpdd").example(tmp_path / "d")

    def load(*sets):
        places = (f'run.storage="{tmp_path}"', "run.name=first", f'data.root="{tmp_path / "d"}"', "data.dataset=mpdd")
        return load_config(preset="tiny", sets=(*places, "data.split=third", *sets)).config

    config = load()
    split = split_as(config.data, 0, configured(config.data).scan(tmp_path / "d"), about_dataset(config))
    run_folder(config).write_json("split.json", split.to_json())
    return load


def test_a_verb_that_asks_for_another_split_is_refused(run):
    config = run()
    assert stored_split(run_folder(config), config.data.root, config).mode == "third"
    for word in ("data.split=half", "data.split=full", "data.several_defects=each"):
        with pytest.raises(SplitError, match=r"this run's split was made with data\."):
            stored_split(run_folder(config), config.data.root, run(word))


def test_an_image_that_changed_since_the_split_is_refused(run, tmp_path):
    config = run()
    image = tmp_path / "d" / "tubes" / "test" / "anomalous" / "001.png"
    image.write_bytes(image.read_bytes() + b" ")
    with pytest.raises(SplitError, match=r"changed tubes/test/anomalous/001\.png"):
        stored_split(run_folder(config), config.data.root, config)


def test_models_and_pairs_of_another_split_are_refused_by_name(run):
    config = run()
    split = stored_split(run_folder(config), config.data.root, config)
    own = split.category("tubes").digest
    check_same_split([{"category": "tubes", "split_digest": own}, {"category": "tubes"}], split, "the model")
    with pytest.raises(ValueError, match=f"the model of 'tubes' was made under the split 0123, .* {own}"):
        check_same_split([{"category": "tubes", "split_digest": "0123"}], split, "the model")


def test_the_split_keeps_the_terms_of_the_images(run):
    config = run()
    about = json.loads(run_folder(config).read_bytes("split.json"))["about"]
    assert (about["licence"], about["non_commercial"]) == ("CC BY-NC-SA 4.0", True)
