import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.report.paper import TABLES, paper_tables, read, recomputed, why_not


def config(dataset="mvtec", resolution=256):
    return Config.model_validate({"data": {"dataset": dataset, "resolution": resolution}})


def score(metric, category, value, level="category", n=1000, **conditions):
    row = {"metric": metric, "level": level, "category": category, "value": value, "n": n, "conditions": conditions}
    return row | {"defect": "x" if level == "defect" else None}


def table_one(n=1000, suffix=""):
    alike = {"is": {"profile": "torch-fidelity", "splits": 10, "backbone": "inception"}}
    alike["ic_lpips"] = {"profile": "anomalydiffusion", "backbone": "lpips 0.1, vgg"}
    rows = []
    for metric, value in (("is", 2.5), ("ic_lpips", 0.25)):
        rows += [score(metric + suffix, "bottle", value, level, n, **alike[metric]) for level in ("defect", "category")]
    return rows


def test_every_table_is_read_whole():
    sizes = {paper.number: len(read(paper)[0]) for paper in TABLES}
    assert sizes == {"I": 15, "II": 15, "III": 6, "IV": 15, "V": 0, "VI": 12, "VII": 10}
    assert read(TABLES[0])[0]["metal_nut"]["DH-Diff"] == (1.94, 0.34)
    assert read(TABLES[4])[1]["DH-Diff"] == (97.2, 98.7)
    assert "splicing_connectors (logical)" in read(TABLES[6])[0]


@pytest.mark.parametrize(
    ("number", "method", "expected"),
    [
        ("I", "DH-Diff", (2.003, 0.382)),
        ("II", "DRAEM", (None, 92.46)),
        ("III", "DH-Diff", (97.37, None)),
        ("IV", "DevNet", (88.41, None)),
        ("VII", "EfficientAD", (90.72,)),
    ],
)
def test_averages_are_recomputed_from_the_rows(number, method, expected):
    (paper,) = (p for p in TABLES if p.number == number)
    for value, want in zip(recomputed(read(paper)[0])[method], expected, strict=True):
        assert want is None or value == pytest.approx(want, abs=0.006)


def test_ours_joins_the_papers_table_when_it_was_measured_alike():
    table = paper_tables(config(), table_one(), {})[0]
    assert table.heads[-1] == "this run"
    assert next(row for row in table.rows if row[0] == "bottle")[-1] == "2.50 / 0.25"
    assert "DH-Diff" in table.note, "the printed 1.94 is not the mean of its rows"


@pytest.mark.parametrize(
    ("rows", "size", "reason"),
    [
        (table_one(n=504), 256, "504 images of a defect, not 1000"),
        (table_one(suffix="_standin"), 256, "other networks"),
        (table_one(), 64, "64 pixels, not 256"),
    ],
)
def test_what_was_measured_otherwise_stands_apart_and_says_why(rows, size, reason):
    paper, ours = paper_tables(config(resolution=size), rows, {})[:2]
    assert "this run" not in paper.heads
    assert reason in ours.note
    assert ours.rows == [["bottle", "2.50", "0.25"]]


def test_detection_is_in_percent_and_the_other_test_set_is_named():
    found = {"bottle": {"synthetic": {"image_auroc": 0.991, "pixel_auroc": 0.98, "pixel_ap": 0.9}}}
    found["conditions"] = {"network": "draem", "channels": 64, "select": "last"}
    ours = [t for t in paper_tables(config(), [], found) if "not measured alike" in t.title]
    assert ours[0].rows == [["bottle", "99.1", "98.0"]]
    assert "held-out part of the anomalies (50%)" in ours[0].note


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"train_fraction": 0.7}, "(30%)"),
        ({"split": "half"}, "(50%)"),
        ({"split": "third"}, "(two thirds)"),
        ({"split": "kshot", "shots": 4}, "(all but 4 of each defect)"),
        ({"split": "given"}, "(the given test side)"),
    ],
)
def test_what_was_tested_on_is_named_as_the_split_is(data, words):
    other = Config.model_validate({"data": {"dataset": "mvtec", "resolution": 256, **data}})
    (reason,) = why_not(TABLES[1], other, [], {})
    assert words in reason
    full = Config.model_validate({"data": {"dataset": "mvtec", "resolution": 256, "split": "full"}})
    assert why_not(TABLES[1], full, [], {}) == []


def test_another_dataset_has_no_table_of_the_paper():
    assert paper_tables(config("procedural"), table_one(), {}) == []
