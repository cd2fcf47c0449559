"""The command tree: instant help, exit codes that mean something, JSON alone on stdout."""

import json
import os
import subprocess
import sys

import pytest

from dhdiff_ray import __version__
from dhdiff_ray.cli.app import app, exit_code
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.cluster.local import ClusterError

HEAVY = ("torch", "ray", "diffusers", "transformers", "pyarrow", "sklearn", "rich", "psutil", "PIL")


def run(*words, **environment):
    """The console script in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")} | environment
    command = [sys.executable, "-m", "dhdiff_ray", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize("words", [[], ["submit"], ["submit", "train"], ["score"]])
def test_help_imports_nothing_heavy(words):
    code = (
        f"import sys\nfrom dhdiff_ray.cli.app import main\nsys.argv = ['dhdiff-ray', *{words!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def _commands(group, path=()):
    for command in group.registered_commands:
        yield (*path, command.name), command
    for sub in group.registered_groups:
        yield from _commands(sub.typer_instance, (*path, sub.name))


@pytest.mark.parametrize(("path", "command"), [pytest.param(p, c, id=" ".join(p)) for p, c in _commands(app)])
def test_every_command_has_json_and_an_example(path, command):
    import inspect

    assert "as_json" in inspect.signature(command.callback).parameters
    assert f"Example: dhdiff-ray {' '.join(path)}" in command.callback.__doc__


@pytest.mark.parametrize(
    "path", [(), *(path for path, _ in _commands(app)), *((g.name,) for g in app.registered_groups)]
)
def test_every_help_fits_80_columns_and_cuts_no_sentence(path, invoke, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(*path, "--help")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith("...") and "tiny, ..." not in line] == []


def test_version_is_data_on_stdout():
    assert run("--version").stdout.strip() == __version__
    assert json.loads(run("--version", "--json").stdout) == {"version": __version__}


def test_exit_codes_tell_usage_from_cluster_from_failure():
    assert exit_code(ConfigError("x")) == 2
    assert exit_code(ClusterError("x")) == 5
    assert exit_code(ValueError("x")) == 1
    assert exit_code(FileNotFoundError("x")) == 1
    assert exit_code(RuntimeError("a fault of ours")) is None


def test_a_wrong_command_suggests_the_right_one():
    done = run("submti")
    assert done.returncode == 2
    assert "Did you mean 'submit'" in done.stderr


def test_an_error_with_json_is_one_document_and_no_traceback(tmp_path):
    done = run("submit", "score", "--run", "first", "--storage", str(tmp_path), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert "submit train" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_cluster_leaves_5_and_says_what_to_type():
    done = run("jobs", "list", "--address", "http://127.0.0.1:1")
    assert done.returncode == 5
    assert "dhdiff-ray doctor --address http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_color_is_honoured():
    assert "\x1b[" not in run("submit", "score", "--run", "x", NO_COLOR="1").stderr
