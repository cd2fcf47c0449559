"""What a run was begun with is not asked again; what cannot be used is refused before a job starts."""

import json

import pytest

from dhdiff_ray.cli.options import Typed, TypedPairs
from dhdiff_ray.cli.resolve import resolve, samples_here
from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError


@pytest.fixture
def stored(tmp_path):
    """A run that was trained with other than default values, and has been moved since."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    config = Config.model_validate(
        {"run": {"name": "first", "storage": "/elsewhere"}, "data": {"root": "/images"}, "train": {"steps": 7}}
    )
    (folder / "config.json").write_text(config.model_dump_json())
    return str(tmp_path / "runs")


def test_a_later_verb_starts_from_what_the_run_was_made_with(stored):
    loaded = resolve("synthesize", TypedPairs(run="first", storage=stored, pairs=3))
    assert loaded.config.train.steps == 7
    assert loaded.config.data.root == "/images"
    assert loaded.config.synthesize.pairs_per_defect == 3
    assert loaded.origins["synthesize.pairs_per_defect"] == "--pairs"


def test_a_moved_run_is_used_where_it_lies_now(stored):
    assert resolve("score", Typed(run="first", storage=stored)).config.run.storage == stored


def test_flags_and_sets_win_over_the_run(stored):
    typed = Typed(run="first", storage=stored, root="/new", sets=["train.steps=9"])
    config = resolve("train", typed, resume=True).config
    assert (config.train.steps, config.data.root) == (9, "/new")


def test_train_refuses_a_run_that_exists(stored):
    with pytest.raises(ConfigError, match=r"--resume.*--run NEW_NAME"):
        resolve("train", Typed(run="first", storage=stored, root="/images"))


def test_train_asks_for_a_name_and_a_dataset(tmp_path):
    with pytest.raises(ConfigError, match="--run NAME"):
        resolve("train", Typed(root="/images"))
    with pytest.raises(ConfigError, match="--root FOLDER"):
        resolve("train", Typed(run="x", storage=str(tmp_path)))


def test_an_unknown_run_names_those_there_are(stored):
    with pytest.raises(ConfigError, match="there are: first"):
        resolve("score", Typed(run="frist", storage=stored))


def test_a_category_that_the_dataset_does_not_have_is_refused_where_its_images_can_be_seen(tmp_path):
    from dhdiff_ray.data.registry import open_dataset

    open_dataset("mvtec").example(tmp_path)
    assert {s.category for s in samples_here(Config.model_validate({"data": {"root": str(tmp_path)}}))} > {"bottle"}
    with pytest.raises(ValueError, match="did you mean 'bottle'"):
        samples_here(Config.model_validate({"data": {"root": str(tmp_path), "categories": ["bottl"]}}))
    assert samples_here(Config.model_validate({"data": {"root": str(tmp_path / "elsewhere")}})) == []


def test_filter_wins_over_set_and_pairs_does_not(stored):
    sets = ["synthesize.min_iou=0.5", "synthesize.pairs_per_defect=5"]
    config = resolve("all", TypedPairs(run="first", storage=stored, sets=sets, pairs=3, min_iou=0.3)).config
    assert (config.synthesize.min_iou, config.synthesize.pairs_per_defect) == (0.3, 5)


def test_dry_run_shows_the_plan_and_sends_nothing(invoke, stored, images):
    words = ("--run", "first", "--storage", stored, "--dataset", "procedural", "--root", images)
    result = invoke("submit", "synthesize", *words, "-n", 3, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert plan["verb"] == "synthesize"
    assert plan["resources"]["workers"] == 1
    assert plan["origins"]["synthesize.pairs_per_defect"] == "--pairs"


def test_detach_without_a_cluster_says_how_to_start_one(invoke, stored):
    result = invoke("submit", "score", "--run", "first", "--storage", stored, "--detach")
    assert isinstance(result.exception, ConfigError)
    assert "dhdiff-ray cluster up" in str(result.exception)


def foundation(tmp_path, *lines):
    recipe = tmp_path / "foundation.toml"
    recipe.write_text("\n".join(['preset = "tiny"', "[[sources]]", 'dataset = "procedural"', *lines]))
    return recipe


def test_a_source_without_a_root_lies_in_root_and_a_foundation_is_trained_alone(tmp_path):
    there = {"run": "x", "storage": str(tmp_path)}
    recipe = foundation(tmp_path)
    assert resolve("train", Typed(recipe=recipe, root="/images", **there)).config.sources[0].dataset == "procedural"
    with pytest.raises(ConfigError, match="--root FOLDER"):
        resolve("train", Typed(recipe=recipe, **there))
    with pytest.raises(ConfigError, match="submit train"):
        resolve("all", TypedPairs(recipe=recipe, root="/images", **there))
    with pytest.raises(ConfigError, match=r"leave out data\.categories"):
        resolve("train", Typed(recipe=recipe, root="/images", category=["mesh"], **there))
    with pytest.raises(ConfigError, match="weight"):
        resolve("train", Typed(recipe=foundation(tmp_path, "weight = 0"), root="/images", **there))


def test_a_source_that_cannot_be_read_is_named_before_a_job_starts(tmp_path, images):
    recipe = foundation(tmp_path, 'categories = ["mesh", "capsul"]')
    config = resolve("train", Typed(recipe=recipe, root=str(images), run="x", storage=str(tmp_path))).config
    with pytest.raises(ValueError, match=r"the source procedural .* cannot be read: no category 'capsul'.*'capsule'"):
        samples_here(config)
    recipe = foundation(tmp_path, 'categories = ["mesh"]')
    config = resolve("train", Typed(recipe=recipe, root=str(images), run="x", storage=str(tmp_path))).config
    assert {sample.category for sample in samples_here(config)} == {"mesh"}
