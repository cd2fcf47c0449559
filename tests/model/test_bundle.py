import subprocess
import sys

import numpy as np
import pytest

from dhdiff_ray.model.bundle import write_self_contained

STRANGER = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dhdiff_ray":
            raise ImportError("dhdiff_ray is not installed here")

sys.meta_path.insert(0, NotInstalled())
import numpy as np
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
np.save(sys.argv[2], pipeline(defect="crack", seed=3, output_type="np").images)
"""


def test_an_exported_model_draws_the_same_pair_where_the_package_is_not_installed(pipeline, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "model")
    write_self_contained(tmp_path / "model", tmp_path / "export")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = [sys.executable, "-c", STRANGER, str(tmp_path / "export"), str(tmp_path / "images.npy")]
    done = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    mine = pipeline(defect="crack", seed=3, output_type="np").images
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), mine, atol=1e-6)


def test_a_folder_that_is_there_is_not_overwritten(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="is there already"):
        write_self_contained(tmp_path / "model", tmp_path)
    with pytest.raises(ValueError, match="no published model"):
        write_self_contained(tmp_path, tmp_path / "export")
