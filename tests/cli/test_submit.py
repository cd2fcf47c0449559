"""``submit``: a sub-command per verb with its own options only, and every line typed before goes on working."""

import json
import re

import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError

COMMON = {
    *("--run", "--storage", "--resume", "--dataset", "--root", "--category", "--preset", "--set", "--address"),
    *("--insecure", "--check", "--no-check", "--dry-run", "--price", "--detach", "--verbose", "--json", "--help"),
}
PAIRS = {"--pairs", "--filter"}
VERBS = {"train": COMMON, "synthesize": COMMON | PAIRS, "score": COMMON, "detect": COMMON, "all": COMMON | PAIRS}


@pytest.fixture
def stored(tmp_path):
    """The storage of a run that was trained."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(Config.model_validate({"run": {"name": "first"}}).model_dump_json())
    return str(tmp_path / "runs")


@pytest.mark.parametrize(("verb", "options"), [*VERBS.items(), ("report", {"--run", "--storage", "--json", "--help"})])
def test_a_verbs_help_has_its_own_options_only(verb, options, invoke):
    shown = invoke("submit", verb, "--help").stdout
    assert (
        set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown, re.MULTILINE)) | set(re.findall(r" / (--[\w-]+)", shown))
        == options
    )
    assert f"Example:\n  dhdiff-ray submit {verb}" in shown


def test_the_groups_help_has_a_line_and_an_example_of_each_verb(invoke):
    shown = invoke("submit", "--help").stdout
    for verb in (*VERBS, "report"):
        assert re.search(rf"^  {verb} +\w.*\.$", shown, re.MULTILINE)
        assert f"  dhdiff-ray submit {verb} " in shown


@pytest.mark.parametrize("flag", [("-n", "3"), ("-n3",), ("--pairs=3",), ("--filter", "0.3"), ("--filter=0.3",)])
@pytest.mark.parametrize("verb", ["train", "score", "detect", "report"])
def test_an_option_of_another_verb_is_a_usage_error_that_says_where_it_belongs(flag, verb, invoke, stored):
    result = invoke("submit", verb, "--run", "first", "--storage", stored, *flag)
    assert isinstance(result.exception, ConfigError)
    assert re.fullmatch(rf"--(pairs|filter) belongs to synthesize and all, not to {verb}", str(result.exception))


@pytest.mark.parametrize(
    "line",
    [
        "submit synthesize --run first -n 3",
        "submit --run first synthesize -n 3",
        "submit --run first -n 3 synthesize",
        "submit -n3 --run=first synthesize",
    ],
)
def test_options_stand_before_the_verb_or_behind_it(line, invoke, stored):
    plan = json.loads(invoke(*line.split(), "--storage", stored, "--dry-run", "--json").stdout)
    assert (plan["verb"], plan["config"]["synthesize"]["pairs_per_defect"]) == ("synthesize", 3)


def test_a_price_without_a_dry_run_is_refused(invoke, stored):
    result = invoke("submit", "score", "--run", "first", "--storage", stored, "--price", "2.5")
    assert str(result.exception) == "--price only tells what a job would cost; add --dry-run"


def test_a_run_may_have_the_name_of_a_verb(invoke, stored):
    result = invoke("submit", "--run", "train", "score", "--storage", stored)
    assert "there is no run" in str(result.exception) and "runs/train" in str(result.exception)


def test_a_recipe_stands_behind_the_verb(invoke, tmp_path, stored):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[synthesize]\npairs_per_defect = 4\n[score]\nfeatures = "standin"\n')
    words = ("--run", "first", "--storage", stored, "--dry-run", "--json")
    plan = json.loads(invoke("submit", "all", recipe, *words).stdout)
    assert plan["origins"]["synthesize.pairs_per_defect"] == str(recipe)


def test_a_plan_names_what_was_set_and_not_every_value_of_the_preset(invoke, tmp_path, images):
    words = ("--dataset", "procedural", "--root", images, "--storage", tmp_path, "--run", "a", "--preset", "tiny")
    plan = invoke("submit", "train", *words, "--set", "train.steps=6", "--dry-run").stdout.splitlines()
    assert "train.steps from --set train.steps=6" in plan
    assert plan[-1] == "the rest from preset tiny, shown by: dhdiff-ray config show --preset tiny --origin"
    assert not [line for line in plan[:-1] if "preset" in line]


def test_without_a_verb_the_verbs_are_named(invoke):
    assert invoke("submit").exit_code == 2
    wrong = invoke("submit", "--run", "first")
    assert wrong.exit_code == 2
    assert "there are: train, synthesize, score, detect, all, report" in wrong.stderr
    assert invoke("submit", "--run", "first", "--help").exit_code == 0
    assert "Did you mean 'train'" in invoke("submit", "trian").stderr


def test_submit_report_is_report_and_takes_what_every_verb_takes(invoke, stored):
    words = ("--run", "first", "--storage", stored, "--json")
    one = invoke("report", *words)
    two = invoke("submit", "report", *words, "--address", "local", "--detach", "--resume", "--no-check", "-v")
    assert (one.exit_code, one.stdout) == (0, two.stdout)
