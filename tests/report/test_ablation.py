import json
import re
import tomllib
from functools import partial
from pathlib import Path

import pytest

from dhdiff_ray.config import AblationConfig, AblationRow
from dhdiff_ray.report.ablation import REAL, as_markdown, as_rows, lead, summarise

ROWS = (AblationRow(name="a", paper=71.5), AblationRow(name="b"))
ABLATION = AblationConfig(rows=ROWS, seeds=(0, 1), table="Table VIII")


def cell(row, seed, category, pixel_ap, iou=0.5):
    figures = {"pixel_ap": pixel_ap, "pixel_auroc": 0.9, "image_auroc": 1.0}
    own = {"iou": iou, "ap": 0.4, "nonempty": 1.0, "seconds": {"train": 10.0}} if row != REAL else {}
    return {"row": row, "seed": seed, "category": category, **figures, **own}


CELLS = [cell(r, s, c, ap) for (r, s, c), ap in {
    (REAL, 0, "x"): 0.9, (REAL, 0, "y"): 1.0, ("a", 0, "x"): 0.2, ("a", 0, "y"): 0.4, ("a", 1, "x"): 0.4,
    ("a", 1, "y"): 0.6, ("b", 0, "x"): 0.7}.items()]  # fmt: skip


def test_a_rows_figure_is_the_mean_over_categories_then_over_seeds():
    rows = {row["row"]: row for row in summarise(CELLS, ABLATION)}
    assert rows["a"]["pixel_ap"]["mean"] == pytest.approx(0.4)
    assert rows["a"]["pixel_ap"]["std"] == pytest.approx(0.2 / 2**0.5)
    assert rows["a"]["pixel_ap"]["x"] == pytest.approx(0.3)
    assert rows["a"]["seeds"] == [0, 1]


def test_a_seed_with_a_missing_category_counts_for_nothing():
    rows = {row["row"]: row for row in summarise(CELLS, ABLATION)}
    assert rows["b"]["seeds"] == []
    assert "pixel_ap" not in rows["b"]


def test_a_model_that_was_loaded_and_not_trained_says_nothing_about_training_time():
    loaded = [{**c, "seconds": {"load": 0.5}} if c.get("seed") == 1 and "seconds" in c else c for c in CELLS]
    rows = {row["row"]: row for row in summarise(loaded, ABLATION)}
    assert rows["a"]["train_seconds"] == 10.0


def test_the_page_names_the_papers_column_as_another_dataset():
    page = as_markdown(summarise(CELLS, ABLATION), ABLATION, {"training steps": 600})
    assert "| a | 40.0 ± 14.1 |" in page
    assert "71.5" in page
    assert "another dataset" in page
    assert "training steps: 600" in page


def test_every_line_has_a_cell_per_column():
    for rows in (as_rows, partial(as_rows, short=True)):
        head, lines = rows(summarise(CELLS, ABLATION))
        assert {len(line) for line in lines} == {len(head)}


ROOT = Path(__file__).parents[2]


def test_rows_are_compared_by_seed_not_by_cell():
    rows = {("a", 0, "x"): 0.2, ("a", 0, "y"): 0.4, ("a", 1, "x"): 0.5, ("a", 1, "y"): 0.7, ("b", 0, "x"): 0.1,
            ("b", 0, "y"): 0.3, ("b", 1, "x"): 0.3, ("b", 1, "y"): 0.5}  # fmt: skip
    leads, p = lead([cell(r, s, c, ap) for (r, s, c), ap in rows.items()], "a", "b")
    assert leads == pytest.approx([0.1, 0.2])
    assert p == pytest.approx(0.2048, abs=1e-3)  # t = 3 with one degree of freedom
    with pytest.raises(ValueError, match="1 seeds in common"):
        lead(CELLS, "a", "b")


def test_the_page_of_findings_says_table_viiis_p_values_by_seed():
    cells = json.loads((ROOT / "benchmarks/results/table8.json").read_text())["cells"]
    page = " ".join((ROOT / "benchmarks/results/README.md").read_text().split())
    over = {"entangled-merge": "p = {} and", "dda-merge": "over DDA alone (p = {})", "entangled": "by seed (p = {})"}
    for other, words in over.items():
        p = f"{lead(cells, 'dda-ssm-merge', other)[1]:.{3 if other == 'entangled' else 2}f}"
        assert words.format(p.lstrip("0")) in page


def test_table_ix_has_every_other_encoder_block_where_the_paper_says_so():
    rows = {r["name"]: r["set"] for r in tomllib.loads((ROOT / "jobs/table9.toml").read_text())["ablation"]["rows"]}
    for name, switches in rows.items():
        encoder, decoder = map(int, re.findall(r"\d", name))
        blocks = [0, 1, 2, 3] if encoder == 4 else [0, 2]
        for part in ("dda", "ssm"):
            assert switches[f"model.{part}_encoder"] == blocks
            assert switches[f"model.{part}_decoder"] == ([0, 2] if decoder else [])
