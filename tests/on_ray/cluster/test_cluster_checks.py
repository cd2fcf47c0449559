"""A cluster that would not run our jobs, or that anybody could use, is refused before anything is sent."""

import platform

import pytest
import ray

from dhdiff_ray.on_ray.cluster.checks import check_closed, check_versions
from dhdiff_ray.on_ray.cluster.local import ClusterError

HERE = {"ray": ray.__version__, "python": platform.python_version()}


def test_the_same_versions_pass_whatever_the_last_number_of_python():
    check_versions("http://h:1", HERE)
    check_versions("http://h:1", {"ray": HERE["ray"], "python": HERE["python"].rsplit(".", 1)[0] + ".99"})
    check_versions("http://h:1", {"ray": HERE["ray"]})


@pytest.mark.parametrize(
    ("changed", "told"), [({"ray": "2.1.0"}, r"pip install ray==2\.1\.0"), ({"python": "3.9.1"}, "PYTHON=python3.9")]
)
def test_other_versions_are_told_with_what_to_install(changed, told):
    with pytest.raises(ClusterError, match=told):
        check_versions("http://h:1", HERE | changed)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "http://localhost:1", "http://[::1]:8265"])
def test_an_open_cluster_of_this_machine_is_used(address):
    check_closed(address, "disabled")


def test_an_open_cluster_elsewhere_is_refused_and_a_closed_one_used():
    with pytest.raises(ClusterError, match="--insecure"):
        check_closed("http://10.1.2.3:8265", "disabled")
    check_closed("http://10.1.2.3:8265", "token")
