"""The job that tests detectors; what it runs is tried in tests/detector/test_kinds.py."""

import pytest

from dhdiff_ray.on_ray.verbs import detect
from dhdiff_ray.pairs.writer import PairsError


def test_a_run_without_pairs_says_what_to_submit(trained):
    with pytest.raises(PairsError, match="submit synthesize"):
        detect.main(trained())
