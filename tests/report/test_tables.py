from dhdiff_ray.report.tables import alignment_table, detection_table, score_tables, text, timing_table


def score(level, category, defect, value, **conditions):
    return {
        "level": level,
        "category": category,
        "defect": defect,
        "metric": "ic_lpips",
        "value": value,
        "n": 4,
        "conditions": conditions,
    }


def test_shared_conditions_stand_above_and_differing_ones_get_a_column():
    (table,) = score_tables(
        [
            score("defect", "cable", "cut", 0.2, profile="anomalydiffusion", cluster_sizes=[3, 0, 1, 0]),
            score("defect", "cable", "poke", None, profile="anomalydiffusion", cluster_sizes=[1, 1]),
            score("category", "cable", None, 0.2, profile="anomalydiffusion", defects_in_mean=1),
            score("run", None, None, 0.2, profile="anomalydiffusion"),
        ]
    )
    assert table.title == "IC-LPIPS"
    assert table.conditions == {"profile": "anomalydiffusion"}
    assert table.heads[-1] == "cluster sizes"
    assert table.kinds == ["run", "category", "defect", "defect"]
    assert table.rows[2] == ["cable", "cut", "0.200", "4", "0 (×2), 1, 3"]
    assert table.rows[3][2] == "–"
    assert table.note == ""


def test_standin_scores_are_called_what_they_are():
    (table,) = score_tables([{**score("run", None, None, 1.0), "metric": "is_standin"}])
    assert "stand-in" in table.title
    assert "never papers" in table.note


def test_the_oracle_stands_beside_the_agreement():
    table = alignment_table({"mesh": {"iou": 0.5, "ap": None, "nonempty": 0.9, "n": 8, "oracle": {"pixel_ap": 0.98}}})
    assert table.rows == [["mesh", "0.500", "–", "90%", "8", "0.980"]]
    assert table.heads[-1] == "Oracle: pixel AP"


def test_a_figure_of_the_pairs_stands_beside_the_same_of_real_images():
    row = {"iou": 0.5, "ap": 0.6, "nonempty": 0.9, "n": 8, "reference": {"iou": 0.9, "ap": 0.95, "n": 6}}
    table = alignment_table({"mesh": row})
    assert list(zip(table.heads, table.rows[0], strict=True))[1:5] == [
        ("Mean IoU", "0.500"),
        ("Real IoU", "0.900"),
        ("Pixel AP", "0.600"),
        ("Real AP", "0.950"),
    ]


def test_small_numbers_keep_their_first_digits():
    assert [text(value) for value in (5.44e-5, -0.00052, 0.0098, 0.01, 0.0, 3, [])] == [
        "5.4e-05",
        "-0.00052",
        "0.0098",
        "0.010",
        "0.000",
        "3",
        "–",
    ]


def test_the_inception_score_says_where_its_scale_is():
    rows = [{**score("defect", "mesh", "bent", 1.2), "metric": name} for name in ("is", "inception_at_real_n_small")]
    own, scale = score_tables(rows)
    assert "inception_at_real_n" in own.note
    assert "parts of one size" in scale.note
    assert "never papers" in scale.note


def test_spro_is_shown_where_the_data_has_saturation_areas():
    plain = detection_table({"mesh": {"synthetic": {"pixel_ap": 0.5}}})
    loco = detection_table({"box": {"synthetic": {"pixel_ap": 0.5, "spro": 0.25}}})
    assert "sPRO (0.05)" not in plain.heads
    assert loco.rows[0][loco.heads.index("sPRO (0.05)")] == "0.250"


def test_detection_without_a_comparison_has_one_row():
    table = detection_table({"mesh": {"synthetic": {"pixel_ap": 0.5, "n_pairs": 3}}})
    assert len(table.rows) == 1
    assert table.rows[0][:3] == ["mesh", "made pairs", "3"]


def test_detection_shows_its_conditions_and_the_real_images_trained_on():
    table = detection_table({"mesh": {"real": {"pixel_ap": 0.9, "n_train": 7}}, "conditions": {"split_digest": "ab"}})
    assert table.conditions == {"split digest": "ab"}
    assert [row[:3] for row in table.rows] == [["mesh", "real pairs", "7"]]


def test_time_comes_from_the_measurement_or_else_from_the_events():
    assert timing_table({"train": 3, "detect": 2.5}, []).rows == [["train", "3.0"], ["detect", "2.5"]]
    events = [{"verb": "train", "time": 10.0}, {"verb": "train", "time": 14.0}, {"verb": "score"}]
    assert timing_table(None, events).rows == [["train", "4.0"]]


def test_nothing_gives_no_table():
    assert score_tables([]) == []
    assert alignment_table({}) is detection_table({}) is timing_table(None, []) is None


def test_how_many_pairs_were_drawn_again_is_shown_where_some_were():
    row = {"iou": 0.5, "ap": 0.6, "nonempty": 1.0, "n": 8, "oracle": {}}
    table = alignment_table({"mesh": row | {"drawn_again": 0.25}, "capsule": row | {"drawn_again": 0.0}})
    at = table.heads.index("Drawn again")
    assert [cells[at] for cells in table.rows] == ["0%", "25%"]
    assert "Drawn again" in table.note
    assert "Drawn again" not in alignment_table({"mesh": row}).heads
