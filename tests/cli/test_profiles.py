"""A name stands for a cluster's address and its token's file."""

import os
import subprocess
import sys

import pytest

from dhdiff_ray.cli.options import address_or_environment
from dhdiff_ray.cli.profiles import resolved
from dhdiff_ray.config.load import ConfigError


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    file = tmp_path / "clusters.toml"
    token = tmp_path / "lab.token"
    token.write_text("secret")
    token.chmod(0o600)
    file.write_text(f'[lab]\naddress = "https://ray.lab:8265"\ntoken_file = "{token}"\n')
    monkeypatch.setenv("DHDIFF_CLUSTERS", str(file))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back
    return file


def test_a_name_gives_the_address_and_the_token(profiles):
    assert address_or_environment("lab") == "https://ray.lab:8265"
    assert os.environ["RAY_AUTH_TOKEN_PATH"].endswith("lab.token")


def test_an_address_stays_as_it_is(profiles):
    assert resolved("http://10.0.0.1:8265") == "http://10.0.0.1:8265"


@pytest.mark.parametrize("words", [["up", "--run", "trained"], ["down"]])
def test_an_endpoint_s_cluster_is_known_with_its_token_before_ray_is_imported(profiles, paired, tmp_path, words):
    """Ray reads once how it signs in."""
    paired()
    run = ["--storage", str(tmp_path)] if words[0] == "up" else []
    script = f"""if True:
        import sys
        from dhdiff_ray.cli import app, options
        from dhdiff_ray.cli.profiles import resolved
        def told(address):
            print("ray" in sys.modules, resolved(address))
            sys.exit(3)
        options.address_or_environment = told
        sys.argv = ["dhdiff-ray", "serve", *{[*words, *run]}, "--address", "lab"]
        app.main()
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout.strip()) == (3, "False https://ray.lab:8265"), done.stderr[-2000:]


def test_an_unknown_name_is_told_with_the_known_ones(profiles):
    with pytest.raises(ConfigError, match=r"no cluster named .lap..*lab"):
        resolved("lap")


def test_where_no_cluster_stands_local_says_how_to_start_one(profiles):
    with pytest.raises(ConfigError, match="no cluster stands on this machine; start one: dhdiff-ray cluster up"):
        resolved("local")


def test_a_token_that_others_may_read_is_refused(profiles):
    (profiles.parent / "lab.token").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        resolved("lab")


@pytest.mark.parametrize(
    ("content", "told"),
    [("[lab", "not TOML"), ("[lab]\n", "needs: address"), ('[lab]\naddress="a"\ntoken="s"\n', "unknown key 'token'")],
)
def test_a_file_that_cannot_be_used_says_why(profiles, content, told):
    profiles.write_text(content)
    with pytest.raises(ConfigError, match=told):
        resolved("lab")
