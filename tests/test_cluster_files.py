"""The files in cluster/: schemas, Ray's own validators, linters; none opens a door or holds a secret."""

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import pytest
import yaml
from cluster_schema import KUBERAY
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.local import JOB_ENVIRONMENT
from dhdiff_ray.on_ray.serve.doors import environment
from dhdiff_ray.on_ray.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
KUBE = CLUSTER / "kuberay"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
LOCK = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"app.kubernetes.io/part-of": "dhdiff-ray"}
LAUNCHERS = ("aws", "gcp")


def tool(name: str) -> str:
    """A linter of the `dev` extra."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"no {name} for this platform")
    return found


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def resources(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(KUBE.glob("*.yaml")):
        yield from ((file.name, document) for document in documents(file) if document["kind"] == kind)


def ray_clusters() -> list[Any]:
    """The cluster part of each of KubeRay's three kinds."""
    places = {"RayCluster": "", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    return [
        pytest.param(document["spec"][place] if place else document["spec"], id=name)
        for kind, place in places.items()
        for name, document in resources(kind)
    ]


def launcher(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def readme() -> str:
    return (CLUSTER / "README.md").read_text()


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def test_the_readme_names_every_file_and_every_file_is_there():
    text = readme()
    for file in FILES:
        assert f"`{file.relative_to(CLUSTER)}`" in text or file.name == "README.md", file
    for named in re.findall(r"`((?:kuberay/)?\w+\.(?:ya?ml|sh|json))`", text):
        assert (CLUSTER / named).is_file(), named


def test_everything_that_is_data_parses():
    for file in FILES:
        if file.suffix == ".yaml":
            assert all(isinstance(document, dict) for document in documents(file)), file
        elif file.suffix == ".json":
            json.loads(file.read_text())


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberays_manifests_have_its_fields_and_no_others(kind):
    found = list(resources(kind))
    assert len(found) == 1
    for _, document in found:
        jsonschema.validate(document, KUBERAY[kind])
        broken = copy.deepcopy(document)
        broken["spec"]["authOption"] = {"mode": "token"}
        with pytest.raises(jsonschema.ValidationError, match="authOption"):
            jsonschema.validate(broken, KUBERAY[kind])


@pytest.mark.parametrize("cluster", ray_clusters())
def test_each_kuberay_cluster_wants_the_token_and_runs_our_versions(cluster):
    assert cluster["authOptions"] == {"mode": "token", "secretName": "dhdiff-ray-token"}
    assert cluster["rayVersion"] == LOCK["ray"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]
        assert pod["metadata"]["labels"] == OURS  # what the network policies select
        (container,) = pod["spec"]["containers"]
        assert container["image"] == f"dhdiff-ray:{PROJECT['version']}"
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert set(mounts.values()) == set(volumes)
        memory = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert memory["medium"] == "Memory"
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store < gibibytes(memory["sizeLimit"]) < gibibytes(container["resources"]["limits"]["memory"])


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("cluster", ray_clusters())
def test_gpus_are_the_workers_alone(cluster):
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        spec = group["template"]["spec"]
        assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert spec["automountServiceAccountToken"] is False


def test_the_rayjob_starts_a_verb_as_submit_does():
    ((_, job),) = resources("RayJob")
    spec = job["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:4] == ["exec", "python", "-m", "dhdiff_ray.on_ray"] and words[6:] == ["--resume"]
    verb = words[4]
    assert verb in VERBS
    assert spec["metadata"]["verb"] == verb
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": JOB_ENVIRONMENT}
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    folder, _, file = words[5].rpartition("/")
    (mount,) = [m for m in head["containers"][0]["volumeMounts"] if m["mountPath"] == folder]
    (volume,) = [v for v in head["volumes"] if v["name"] == mount["name"]]
    assert f"create configmap {volume['configMap']['name']} --from-file={file}" in readme()


def test_an_endpoint_of_kuberay_has_the_protections_of_serve_up():
    """Serve's controller and proxy are children of the head's raylet, and have its environment."""
    ((_, service),) = resources("RayService")
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert served["proxy_location"] == "HeadOnly", "else the workers' proxies need the environment too"
    (head,) = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    promised = environment(Config().serve)
    assert {entry["name"]: entry["value"] for entry in head["env"]} == promised
    deployed = (ROOT / "jobs" / "serve.yaml").read_text()
    for name, value in promised.items():
        assert f"#   export {name}={value}" in deployed


def test_the_readmes_line_makes_the_rayjobs_configuration():
    (line,) = re.findall(r"^dhdiff-ray (config show .*?) > config\.json$", readme(), re.MULTILINE | re.DOTALL)
    done = CliRunner().invoke(app, shlex.split(line.replace("\\\n", " ").replace("jobs/", f"{ROOT}/jobs/")))
    assert done.exit_code == 0, done.output
    config = Config.model_validate_json(done.stdout)
    assert (config.run.name, config.run.storage) == ("first", "s3://bucket/runs")
    assert config.train.gpus_per_worker == 1


def test_network_policies_let_in_only_whom_they_name():
    policies = {document["metadata"]["name"]: document["spec"] for _, document in resources("NetworkPolicy")}
    ingress, egress = policies["dhdiff-ray-ingress"], policies["dhdiff-ray-egress"]
    assert ingress["podSelector"] == egress["podSelector"] == {"matchLabels": OURS}
    assert (ingress["policyTypes"], egress["policyTypes"]) == (["Ingress"], ["Egress"])
    dashboard = []
    for policy in policies.values():
        for rule in policy.get("ingress", []):
            assert rule["from"], "an empty list lets everybody in"
            ports = [port["port"] for port in rule.get("ports", [])]
            for peer in rule["from"]:
                assert peer.get("podSelector") or peer["namespaceSelector"], peer
                if 8265 in ports or not ports:
                    dashboard.append(peer["podSelector"]["matchLabels"])
    assert dashboard == [OURS, {"app.kubernetes.io/name": "kuberay-operator"}]
    ((_, redis),) = resources("StatefulSet")
    assert policies["dhdiff-redis"]["podSelector"]["matchLabels"] == redis["spec"]["template"]["metadata"]["labels"]
    ((_, service),) = resources("Service")
    host = f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for kind, place in (("RayCluster", None), ("RayService", "rayClusterConfig")):
        ((_, document),) = resources(kind)
        spec = document["spec"][place] if place else document["spec"]
        assert spec["gcsFaultToleranceOptions"]["redisAddress"] == host


@pytest.mark.parametrize("name", LAUNCHERS)
def test_rays_own_validator_takes_the_launchers_files(name):
    config = launcher(name)
    validate_config(prepare_config(copy.deepcopy(config)))
    broken = copy.deepcopy(config)
    broken["idle_timeout_minute"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(broken))
    crowded = copy.deepcopy(config)
    crowded["available_node_types"]["gpu"]["min_workers"] = config["max_workers"] + 1
    with pytest.raises(ValueError, match="max_workers"):
        validate_config(prepare_config(crowded))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launched_machines_are_reached_by_tunnel_and_token_alone(name):
    config = prepare_config(launcher(name))
    assert config["provider"]["use_internal_ips"] is True
    assert config["auth"]["ssh_proxy_use_node_id"] is True
    assert "%h" in config["auth"]["ssh_proxy_command"] and "%p" in config["auth"]["ssh_proxy_command"]
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert config["docker"]["image"].endswith(f"/dhdiff-ray:{PROJECT['version']}")
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start and "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    commands = [line for key, lines in config.items() if key.endswith("_commands") for line in lines]
    assert not [line for line in commands if "pip" in line or "http" in line]  # Ray's defaults install a nightly
    head, gpu = (config["available_node_types"][kind] for kind in ("head", "gpu"))
    assert head["resources"] == {"CPU": 0} and gpu["resources"]["GPU"] == 1
    for node in (head, gpu):
        for network in node["node_config"].get("NetworkInterfaces", []):
            assert network["AssociatePublicIpAddress"] is False
        for network in node["node_config"].get("networkInterfaces", []):
            assert "accessConfigs" not in network  # what gives an external address
    assert config["provider"]["region"] in config["auth"]["ssh_proxy_command"]


def test_ec2_takes_what_ray_will_ask_of_it():
    model = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    validator = botocore.validate.ParamValidator()
    for name, node in launcher("aws")["available_node_types"].items():
        asked = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = validator.validate(asked, model.input_shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert asked["MetadataOptions"]["HttpTokens"] == "required"
    report = validator.validate({**asked, "InstanceTyp": "x"}, model.input_shape)
    assert "InstanceTyp" in report.generate_report()


def test_every_image_is_pinned_and_the_versions_are_the_locks():
    images = [value for file in FILES if file.suffix == ".yaml" for d in documents(file) for value in texts(d, "image")]
    images += re.findall(r"^(?:ARG PYTHON_IMAGE=|FROM )(\S+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) > 8
    for image in images:
        tag = image.rpartition(":")[2] if ":" in image else ""
        assert image == "${PYTHON_IMAGE}" or re.match(r"\d+\.\d+\.\d+", tag), image
    python = re.search(r"PYTHON_IMAGE=python:(\d+\.\d+)\.", (CLUSTER / "Dockerfile").read_text())
    assert python is not None and PROJECT["requires-python"] == f">={python[1]}"
    assert f"--python-version {python[1]}" in (ROOT / "CONTRIBUTING.md").read_text()  # how the lock is made
    assert LOCK["ray"].startswith("2.60.")


def texts(document: Any, wanted: str) -> Iterator[str]:
    return (value for key, value in walk(document) if key == wanted and isinstance(value, str))


def test_nothing_holds_a_secret():
    for file in FILES:
        text = re.sub(r"--hash=sha256:[0-9a-f]{64}", "", file.read_text())
        for pattern in (r"AKIA[0-9A-Z]{16}", r"-----BEGIN", r"\b[0-9a-f]{32,}\b", r"ghp_\w+", r"\bhf_\w{20,}"):
            assert not re.search(pattern, text), f"{file} {pattern}"
        if file.suffix != ".yaml":
            continue
        for document in documents(file):
            assert document.get("kind") != "Secret", f"{file}: secrets are made by a command, see README.md"
            for key, value in walk(document):
                if re.fullmatch(r"\w*(password|token|secret)\w*", key, re.IGNORECASE) and isinstance(value, str):
                    assert key in ("secretName", "HttpTokens"), f"{file}: {key} = {value}"


def test_what_listens_beyond_loopback_asks_for_a_token():
    for file in FILES:
        if file.name != "README.md" and "0.0.0.0" in file.read_text():
            assert file.name == "rayservice.yaml"
    ((_, service),) = resources("RayService")
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = served["applications"]
    assert served["http_options"]["host"] == "0.0.0.0" and application["args"]["public"] is True
    tokens = application["runtime_env"]["env_vars"]["DHDIFF_SERVE_TOKEN_FILE"]
    for group in ("headGroupSpec", "workerGroupSpecs"):
        spec = service["spec"]["rayClusterConfig"][group]
        pod = (spec if group == "headGroupSpec" else spec[0])["template"]["spec"]
        assert str(Path(tokens).parent) in [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    opened = [
        (key, value)
        for file in FILES
        if file.suffix == ".yaml"
        for document in documents(file)
        for key, value in walk(document)
        if (key in ("type", "serviceType") and value in ("LoadBalancer", "NodePort")) or key == "enableIngress"
    ]
    assert not opened


def test_the_dockerfile_ends_as_nobody_special_and_takes_in_only_what_it_names():
    text = (CLUSTER / "Dockerfile").read_text()
    lines = [line.split(maxsplit=1) for line in re.sub(r"\\\n", " ", text).splitlines() if line[:1].isalpha()]
    words = [word for word, _ in lines]
    assert set(words) <= {"ARG", "FROM", "SHELL", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}  # no ADD
    user = [rest for word, rest in lines if word == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY"))
    settings = " ".join(rest for word, rest in lines if word == "ENV")
    assert "HOME=/home/ray" in settings and "RAY_AUTH_MODE=token" in settings
    assert not re.search(r"token_path|auth_token=|password|secret", settings, re.IGNORECASE)
    ignored = (ROOT / ".dockerignore").read_text().split("\n*\n")
    assert len(ignored) == 2, "everything is left out first"
    taken = {line[1:] for line in ignored[1].splitlines() if line.startswith("!")}
    copied = {source for word, rest in lines if word == "COPY" for source in rest.split()[:-1]}
    copied |= set(re.findall(r"--mount=type=bind,source=([^,]+),", text))
    assert {str(Path(source)) for source in copied} == taken
    assert all((ROOT / source).exists() for source in taken)
    assert "--constraint /build/requirements.lock" in text


def test_hadolint_finds_nothing():
    done = subprocess.run([tool("hadolint"), CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
