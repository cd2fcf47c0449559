"""A runner for commands in this process, and no cluster by accident."""

import pytest
from typer.testing import CliRunner


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Run a command; what main() would turn into an exit code is left in ``result.exception``."""
    from dhdiff_ray.cli.app import app

    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
