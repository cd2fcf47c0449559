from dhdiff_ray.metrics.compare import compare


def row(value, n=1000, metric="is", **conditions):
    keys = {"metric": metric, "level": "defect", "category": "bottle", "defect": "crack"}
    return {**keys, "value": value, "n": n, "conditions": conditions}


def test_a_different_number_of_images_warns():
    rows, warnings = compare([row(1.5, n=504)], [row(1.6)])
    assert rows[0]["value"] == 1.5
    assert rows[0]["other"] == 1.6
    assert warnings == ["is: 504 images against 1000; the value depends on how many there are"]


def test_another_profile_backbone_or_weights_warns_for_each():
    ours, theirs = (row(0.3, metric="ic_lpips", profile=p, weights=w) for p, w in (("seas", "a"), ("dfmgan", "b")))
    assert compare([ours], [theirs])[1] == ["ic_lpips: profile seas against dfmgan", "ic_lpips: weights a against b"]


def test_the_same_conditions_say_nothing_and_what_one_side_lacks_is_left_out():
    ours = [row(1.5, splits=10), row(0.3, metric="kid")]
    rows, warnings = compare(ours, [row(1.4, splits=10)])
    assert [r["metric"] for r in rows] == ["is"]
    assert warnings == []
