"""``data`` and ``export`` as a person types them."""

import json

import pytest
from PIL import Image

from dhdiff_ray.data.registry import dataset_names, open_dataset


@pytest.fixture
def root(tmp_path):
    open_dataset("mvtec").example(tmp_path / "d")
    return tmp_path / "d"


@pytest.mark.parametrize("name", [n for n in dataset_names() if n != "procedural"])
def test_every_dataset_passes_scan_and_verify(name, invoke, tmp_path):
    open_dataset(name).example(tmp_path / "d")
    words = ("--dataset", name, "--root", tmp_path / "d", "--json")
    scanned, verified = invoke("data", "scan", *words), invoke("data", "verify", *words)
    value = json.loads(scanned.stdout)
    assert value["missing"] == []
    assert all(row["mask_percent"] for row in value["rows"] if row["masks"])
    assert verified.exit_code == 0, verified.stdout
    assert json.loads(verified.stdout)["findings"] == []


def test_scan_lists_what_is_missing_and_goes_on(invoke, root):
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    value = json.loads(invoke("data", "scan", "--root", root, "--json").stdout)
    assert "001.png" in value["missing"][0]
    assert sum(row["images"] for row in value["rows"]) == 6 + 7 + 6 + 4


def test_verify_leaves_1_and_names_path_and_remedy(invoke, root):
    mask = root / "grid/ground_truth/bent/002_mask.png"
    Image.new("L", (24, 24)).save(mask)
    result = invoke("data", "verify", "--root", root, "--json")
    (finding,) = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert (finding["path"], finding["code"]) == (str(mask), "mask-empty")
    assert finding["remedy"]


def test_the_preview_is_one_page_with_every_defect_and_escaped_names(invoke, root, tmp_path):
    (root / "bottle/test/broken_large").rename(root / "bottle/test/<b>large")
    (root / "bottle/ground_truth/broken_large").rename(root / "bottle/ground_truth/<b>large")
    (root / "grid/train/good/001.png").write_bytes(b"no picture")
    result = invoke("data", "preview", "--root", root, "--out", tmp_path / "p.html", "--json")
    page = (tmp_path / "p.html").read_text()
    assert json.loads(result.stdout)["images"] == 24
    assert "&lt;b&gt;large" in page
    assert "<b>large" not in page
    assert page.count("data:image/jpeg;base64,") == 23
    assert "cannot be read" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_loader_of_ones_own_is_checked_by_its_file(invoke, tmp_path, monkeypatch):
    from dhdiff_ray.data import registry

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    text = (
        "from dhdiff_ray.data.datasets.mvtec import MVTec\nfrom dhdiff_ray.data.registry import dataset\n\n"
        '@dataset("mine")\nclass Mine(MVTec):\n    licence = ""\n    source = "here"\n'
    )
    (tmp_path / "mine.py").write_text(text)
    result = invoke("data", "check", tmp_path / "mine.py", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "licence" in found.pop("lists_the_example_whole")
    assert set(found.values()) == {""}


def test_names_of_datasets_are_completed():
    from dhdiff_ray.cli.complete import datasets

    assert datasets("m") == ["mpdd", "mvtec"]
    assert datasets("") == dataset_names()


def test_export_of_a_run_that_is_not_there_says_what_to_do(invoke, tmp_path):
    result = invoke("export", "--run", "none", "--out", tmp_path / "o", "--format", "coco")
    assert "submit synthesize" in str(result.exception)
