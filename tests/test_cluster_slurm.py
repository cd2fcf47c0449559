"""cluster/slurm.sh, run with stand-ins for Slurm's two commands: what it asks of Ray, its token, its exit codes."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

SCRIPT = Path(__file__).resolve().parents[1] / "cluster" / "slurm.sh"
SCONTROL = 'printf "%s\\n" node1 node2'
SRUN = """
printf '%s\\n' "$@" >"$SEEN/srun"
printf '%s\\n' "$RAY_AUTH_MODE" "${RAY_ADDRESS-unset}" "$RAY_TMPDIR" >"$SEEN/environment"
stat --format=%a "$RAY_AUTH_TOKEN_PATH" "$(dirname "$RAY_AUTH_TOKEN_PATH")" >"$SEEN/modes"
cp "$RAY_AUTH_TOKEN_PATH" "$SEEN/token"
while [[ $1 != -- ]]; do shift; done
shift
if [[ -z ${RAY_FAILS-} ]]; then "$@"; fi  # Ray's own exit code is 0 when it does not start
"""
COMMAND = 'printf "%s\\n" "$@" >"$SEEN/command"; exit "${CODE:-0}"'


@pytest.fixture
def slurm(tmp_path):
    """Runs the script as Slurm would; returns what it left: exit code and messages."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name, body in {"srun": SRUN, "scontrol": SCONTROL, "dhdiff-ray": COMMAND}.items():
        file = folder / name
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    (tmp_path / "seen").mkdir()

    # Without the folder of an environment that is switched on here: the node's own shell would not have it.
    bare = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "dhdiff-ray").exists())

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": bare,
            "HOME": str(tmp_path),
            "SEEN": str(tmp_path / "seen"),
            "DHDIFF_VENV": str(tmp_path / "venv"),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_CPUS_PER_TASK": "8",
            "SLURM_GPUS_ON_NODE": "1",
            "RAY_ADDRESS": "somebody:6379",
        }
        return subprocess.run(
            ["bash", SCRIPT, *words], env=environment | variables, capture_output=True, text=True, timeout=30
        )

    return run


def test_bash_and_shellcheck_find_nothing():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
    found = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if not found:
        pytest.skip("no shellcheck for this platform")
    done = subprocess.run([found, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_asks_symmetric_run_for_every_node_and_the_command_for_the_rest(slurm, tmp_path):
    done = slurm("train", "--run", "my run", "--set", "train.steps=5")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "seen" / "srun").read_text().splitlines()
    assert asked[:3] == ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8"]
    assert asked[3:5] == ["ray", "symmetric-run"]
    rest = asked[5 : asked.index("--")]
    assert rest[:4] == ["--address", "node1:6379", "--min-nodes", "2"]
    assert curate_and_validate_ray_start_args(rest) == ["--num-cpus=8", "--num-gpus=1"]  # Ray's own parser
    command = (tmp_path / "seen" / "command").read_text().splitlines()
    assert command == [
        *("submit", "train", "--run", "my run", "--set", "train.steps=5"),
        *("--address", "http://127.0.0.1:8265"),
    ]


def test_the_token_is_the_jobs_own_and_gone_with_it(slurm, tmp_path):
    assert slurm("train").returncode == 0
    mode, address, folder = (tmp_path / "seen" / "environment").read_text().splitlines()
    assert (mode, address) == ("token", "unset")
    assert folder == "/tmp/dhdiff-17"  # not another user's /tmp/ray
    assert (tmp_path / "seen" / "modes").read_text().split() == ["600", "700"]
    first = (tmp_path / "seen" / "token").read_text()
    assert len(first) == 64
    assert not list((tmp_path / ".dhdiff-ray").iterdir())
    assert slurm("train").returncode == 0
    assert (tmp_path / "seen" / "token").read_text() != first


def test_the_exit_code_is_the_commands_and_a_ray_that_did_not_start_is_one(slurm, tmp_path):
    assert slurm("train", CODE="3").returncode == 3
    done = slurm("train", RAY_FAILS="1")
    assert done.returncode == 5 and "Ray did not start on all 2 nodes" in done.stderr
    assert not list((tmp_path / ".dhdiff-ray").iterdir())


def test_a_job_that_slurm_starts_again_goes_on(slurm, tmp_path):
    assert slurm("train", "--run", "first", SLURM_RESTART_COUNT="1").returncode == 0
    command = (tmp_path / "seen" / "command").read_text().splitlines()
    assert command == ["submit", "train", "--run", "first", "--resume", "--address", "http://127.0.0.1:8265"]


def test_what_is_missing_is_said_before_anything_starts(slurm, tmp_path):
    assert "usage: sbatch cluster/slurm.sh VERB" in slurm().stderr
    done = slurm("train", DHDIFF_VENV=str(tmp_path / "nothing"))
    assert done.returncode == 2 and "DHDIFF_VENV=FOLDER" in done.stderr
    assert "start this with sbatch" in slurm("train", SLURM_JOB_ID="").stderr
    assert not (tmp_path / "seen" / "srun").exists()
