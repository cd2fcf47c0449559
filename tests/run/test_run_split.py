"""Generator, scorer and detector refuse a run whose split does not match; no cluster is needed to say so."""

import pickle

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.registry import configured, open_dataset
from dhdiff_ray.data.split import SplitError
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run


@pytest.fixture
def run(tmp_path):
    """run(*sets) -> the configuration of a run whose split was cut by thirds."""
    open_dataset("mpdd").example(tmp_path / "d")

    def load(*sets):
        places = (f'run.storage="{tmp_path}"', "run.name=first", f'data.root="{tmp_path / "d"}"', "data.dataset=mpdd")
        return load_config(preset="tiny", sets=(*places, "data.split=third", *sets)).config

    config = load()
    Run(config).begin(configured(config.data).scan(tmp_path / "d"))
    return load


def test_a_verb_that_asks_for_another_split_is_refused(run):
    assert Run(run()).check_split().mode == "third"
    for word in ("data.split=half", "data.split=full", "data.several_defects=each"):
        with pytest.raises(SplitError, match=r"this run's split was made with data\."):
            Run(run(word)).check_split()


def test_an_image_that_changed_since_the_split_is_refused(run, tmp_path):
    image = tmp_path / "d" / "tubes" / "test" / "anomalous" / "001.png"
    image.write_bytes(image.read_bytes() + b" ")
    with pytest.raises(SplitError, match=r"changed tubes/test/anomalous/001\.png"):
        Run(run()).check_split()


def test_models_and_pairs_of_another_split_are_refused_by_name(run):
    first = Run(run())
    digest = first.category("tubes").digest
    first.check_same_split([{"category": "tubes", "split_digest": digest}, {"category": "tubes"}], "the model")
    with pytest.raises(ValueError, match=f"the model of 'tubes' was made under the split 0123, .* {digest}"):
        first.check_same_split([{"category": "tubes", "split_digest": "0123"}], "the model")


def test_the_split_keeps_the_terms_of_the_images(run):
    about = Run(run()).split.about
    assert (about["licence"], about["non_commercial"]) == ("CC BY-NC-SA 4.0", True)


def test_a_run_in_another_process_has_its_configuration_and_its_place_and_reads_the_rest_there(run, tmp_path):
    first = Run(run())
    assert "tubes" in first.split.categories
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = Run(first.config, RunFolder.of(str(tmp_path), "moved"))
    sent = pickle.dumps(moved)
    assert b"tubes" not in sent, "what was read stays where it was read"
    there = pickle.loads(sent)
    assert (there.config, there.folder) == (moved.config, moved.folder)
    assert there.split == first.split
    with pytest.raises(ValueError, match="has no split yet"):
        Run(first.config).split  # noqa: B018  it lies there no more


def test_a_run_that_is_there_is_begun_again_only_on_purpose(run):
    first = Run(run())
    with pytest.raises(ValueError, match=r"exists; add --resume .* --run"):
        first.refuse_existing()
    assert Run.stored(first.folder).config == first.config
    with pytest.raises(ValueError, match="is not a run"):
        Run.stored(first.folder.below("models"))
