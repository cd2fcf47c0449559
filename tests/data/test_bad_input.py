"""Everything that is wrong with datasets in the wild: one clear message that names the file, or it is handled.

Each case spoils a copy of a small tree and says what shall come: words of the one error, or ``HANDLED``. No case may
end in another kind of exception, which would be a traceback on a user's screen.
"""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.images import ImageError, read_many
from dhdiff_ray.data.registry import DatasetError, Reading, open_dataset
from dhdiff_ray.data.split import SplitError, make_split
from dhdiff_ray.data.verify import verify

HANDLED = ()
GOOD = "bottle/train/good/000.png"
BAD = "bottle/test/broken_large/000.png"
MASK = "bottle/ground_truth/broken_large/000_mask.png"
SIZE = (24, 24)
CASES = {}


def case(*words, loader="mvtec"):
    """Register a case: what spoils the folder, the loader that reads it, and words of the error."""

    def register(spoil):
        CASES[spoil.__name__] = (spoil, loader, words)
        return spoil

    return register


def save(path, mode, **options):
    colour = {"CMYK": (0, 90, 90, 40), "RGBA": (200, 20, 20, 0), "I;16": 40000}.get(mode, 120)
    Image.new(mode, SIZE, colour).save(path, **options)


@case("broken_large/000.png", "no mask")
def missing_mask(root):
    (root / MASK).unlink()


@case("no folder", "ground_truth/broken_large")
def missing_mask_folder(root):
    shutil.rmtree(root / "bottle/ground_truth/broken_large")


@case("000_mask.png", "(9, 7)")
def mask_of_another_size(root):
    Image.new("L", (9, 7), 255).save(root / MASK)


@case("both masks of 000")
def two_masks_of_one_image(root):
    shutil.copy(root / MASK, (root / MASK).with_name("000.png"))


@case("000.jpg", "share one mask")
def two_images_of_one_mask(root):
    Image.open(root / BAD).convert("RGB").save((root / BAD).with_suffix(".jpg"))


@case(*HANDLED)
def rgba_image(root):
    save(root / GOOD, "RGBA")


@case(*HANDLED)
def rgba_mask_counts_its_colours_not_its_opacity(root):
    picture = Image.new("RGBA", SIZE, (0, 0, 0, 255))
    picture.putpixel((5, 5), (255, 0, 0, 255))
    picture.save(root / MASK)


@case(*HANDLED)
def sixteen_bit_image(root):
    save(root / GOOD, "I;16")


@case(*HANDLED)
def cmyk_image(root):
    save((root / GOOD).with_suffix(".jpg"), "CMYK", format="JPEG")


@case(*HANDLED)
def palette_image(root):
    save(root / GOOD, "P")


@case(*HANDLED)
def exif_rotated_image_is_turned_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (root / BAD, root / MASK):
        path.unlink()
    picture = Image.new("RGB", (30, 20), 90)
    picture.save((root / BAD).with_suffix(".jpg"), exif=exif)
    mask = Image.new("L", (20, 30), 0)
    mask.putpixel((3, 25), 255)
    mask.save(root / MASK)


@case("000_mask.png", "turned?")
def mask_drawn_on_the_picture_before_it_was_turned(root):
    exif_rotated_image_is_turned_upright(root)
    Image.new("L", (30, 20), 255).save(root / MASK)


@case("good/000.png", "no content")
def zero_byte_image(root):
    (root / GOOD).write_bytes(b"")


@case("000_mask.png", "no content")
def zero_byte_mask(root):
    (root / MASK).write_bytes(b"")


@case("good/000.png", "cannot be read")
def truncated_image(root):
    (root / GOOD).write_bytes((root / GOOD).read_bytes()[:-300])


@case("good/000.png", "cannot be read")
def text_named_png(root):
    (root / GOOD).write_text("this is not a picture\n")


@case("good/000.png", "million pixels")
def decompression_bomb(root):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    (root / GOOD).write_bytes(body)


@case("escape.png", "outside")
def link_that_leaves_the_root(root):
    outside = root.parent / "secret.png"
    Image.new("RGB", SIZE).save(outside)
    (root / "bottle/train/good/escape.png").symlink_to(outside)


@case("gone.png", "not there")
def link_to_nowhere(root):
    (root / "bottle/train/good/gone.png").symlink_to(root / "bottle/train/good/never.png")


@case(*HANDLED)
def names_with_spaces_quotes_unicode_and_newlines(root):
    folder = root / "bottle/test/broken_large"
    for at, name in enumerate(("a b", 'it\'s "so"', "größe 瓶", "line\nend")):
        (folder / f"00{at}.png").rename(folder / f"{name}.png")
        masks = root / "bottle/ground_truth/broken_large"
        (masks / f"00{at}_mask.png").rename(masks / f"{name}_mask.png")


@case("cannot name a category or defect", "line\\nend")
def defect_folder_with_a_newline(root):
    (root / "bottle/test/broken_large").rename(root / "bottle/test/line\nend")


@case("000.PNG", "case alone")
def files_that_differ_in_case_alone(root):
    shutil.copy(root / GOOD, (root / GOOD).with_name("000.PNG"))


@case("Broken_Large", "case alone")
def defect_folders_that_differ_in_case_alone(root):
    shutil.copytree(root / "bottle/test/broken_large", root / "bottle/test/Broken_Large")


@case("broken_huge", "no images")
def empty_defect_folder_is_told(root):
    (root / "bottle/test/broken_huge").mkdir()


@case("bottle/broken_large", "1 images", "both sides")
def a_defect_with_one_anomaly(root):
    for at in (1, 2, 3):
        (root / f"bottle/test/broken_large/00{at}.png").unlink()


@case("'bottle' has no anomalies")
def a_category_without_anomalies(root):
    shutil.rmtree(root / "bottle/test/broken_large")
    shutil.rmtree(root / "bottle/test/broken_small")


@case("'bottle' has no normal images")
def a_category_without_normal_images(root):
    for path in (root / "bottle/train/good").iterdir():
        path.unlink()


@case(*HANDLED)
def a_folder_named_like_an_image(root):
    (root / "bottle/train/good/old.png").mkdir()


@case(*HANDLED)
def read_only_folder(root):
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@case("no folder with <category>/train/good", "--root")
def the_folder_of_one_category_as_root(root):
    for path in list((root / "bottle").iterdir()):
        path.rename(root / path.name)
    shutil.rmtree(root / "bottle")
    shutil.rmtree(root / "grid")


@case("manifest.csv, line 3", "outside", loader="folder")
def manifest_path_with_dots(root):
    rewrite(root, lambda text: text.replace("photos/fine 1.jpg", "../photos/fine 1.jpg"))


@case("manifest.csv", "outside", loader="folder")
def manifest_with_an_absolute_path(root):
    rewrite(root, lambda text: text.replace("photos/fine 1.jpg", "/etc/passwd"))


@case(*HANDLED, loader="folder")
def manifest_with_a_byte_order_mark_and_windows_line_ends(root):
    rewrite(root, lambda text: "\ufeff" + text.replace("\n", "\r\n"))


@case(*HANDLED, loader="folder")
def manifest_with_semicolons(root):
    rewrite(root, lambda text: text.replace(",", ";"))


@case("manifest.csv", "not UTF-8", loader="folder")
def manifest_in_another_encoding(root):
    text = (root / "manifest.csv").read_text().replace("dent", "größe")
    (root / "manifest.csv").write_bytes(text.encode("latin-1"))


@case("manifest.csv, line 4", "6 fields", loader="folder")
def manifest_row_with_a_field_missing(root):
    rewrite(root, lambda text: text.replace("photos/fine 2.jpg,,", "photos/fine 2.jpg,"))


@case("line 2", "unknown split 'learn'", loader="folder")
def manifest_with_an_unknown_split(root):
    rewrite(root, lambda text: text.replace("train", "learn"))


@case("defct", "did you mean 'defect'", loader="folder")
def manifest_with_a_misspelt_column(root):
    rewrite(root, lambda text: text.replace("defect", "defct", 1))


@case("fine 3.jpg", "not there", loader="folder")
def manifest_names_a_file_that_vanished(root):
    (root / "photos/fine 3.jpg").unlink()


@case("fine 0.jpg", "listed twice", loader="folder")
def manifest_lists_an_image_twice(root):
    rewrite(root, lambda text: text + "photos/fine 0.jpg,,knob,ok,test,\n")


@case("breakfast_box", "pixel value 99", loader="loco")
def unknown_class_id(root):
    mask = root / "breakfast_box/ground_truth/logical_anomalies/000/000.png"
    Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8) * 99).save(mask)


@case("defects_config.json", "cannot be read", loader="loco")
def broken_table_of_class_ids(root):
    (root / "breakfast_box/defects_config.json").write_text("[{]")


@case("005.JPG", "image_anno.csv", loader="visa")
def an_image_that_the_table_does_not_list(root):
    table = root / "pcb1/image_anno.csv"
    table.write_text("".join(line for line in table.open() if "Anomaly/005" not in line))


@case("1cls.csv", "not there", loader="visa")
def missing_official_split(root):
    (root / "split_csv/1cls.csv").unlink()


def rewrite(root, change):
    table = root / "manifest.csv"
    table.write_bytes(change(table.read_text()).encode())


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples")
    for name in ("mvtec", "folder", "loco", "visa"):
        open_dataset(name).example(root / name)
    return root


def read_whole(name, root):
    """What a run does with a folder: list it, split it, read every file. Returns what was told and what was read."""
    told = []
    samples = open_dataset(name, Reading(tell=told.append)).scan(root)
    split = make_split(samples, fraction=0.5, seed=0, root=root)
    split.to_json()
    return told, read_many(samples, 16, False, pytest.fail)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_or_handled(name, examples, tmp_path):
    spoil, loader, words = CASES[name]
    root = tmp_path / loader
    shutil.copytree(examples / loader, root)
    spoil(root)
    told, message, kept = [], "", []
    try:
        told, (kept, _, masks) = read_whole(loader, root)
        assert all(mask.any() != sample.is_good for sample, mask in zip(kept, masks, strict=True))
    except (DatasetError, ImageError, SplitError) as error:
        message = str(error)
    if words:
        said = message or " ".join(told)
        assert said, "nothing was said"
        assert all(word in said for word in words), said
        assert "\n" not in said
    else:
        assert message == ""
        expected = {".jpg", ".jpeg", ".png"}
        images = [p for p in root.rglob("*") if p.suffix.lower() in expected and p.is_file()]
        assert len(kept) == sum("ground_truth" not in p.parts and "drawn" not in p.parts for p in images)


def test_there_are_at_least_25_cases():
    assert len(CASES) >= 25


@pytest.mark.parametrize(("value", "code"), [(0, "mask-empty"), (255, "mask-full")])
def test_all_black_and_all_white_masks_are_findings(value, code, examples, tmp_path):
    root = tmp_path / "mvtec"
    shutil.copytree(examples / "mvtec", root)
    Image.new("L", SIZE, value).save(root / MASK)
    findings, _ = verify(DataConfig(root=str(root)))
    assert [(f.level, f.code, f.path) for f in findings] == [("error", code, str(root / MASK))]
    assert findings[0].remedy


def test_a_file_that_vanishes_between_listing_and_reading_is_named(examples, tmp_path):
    root = tmp_path / "mvtec"
    shutil.copytree(examples / "mvtec", root)
    samples = open_dataset("mvtec").scan(root)
    (root / GOOD).unlink()
    with pytest.raises(ImageError, match=r"good/000\.png is not there"):
        read_many(samples, 16, False, pytest.fail)
    with pytest.raises(SplitError, match=r"good/000\.png is not there"):
        make_split(samples, fraction=0.5, seed=0, root=root).to_json()


def test_verify_tells_all_of_several_faults_at_once(examples, tmp_path):
    root = tmp_path / "mvtec"
    shutil.copytree(examples / "mvtec", root)
    missing_mask(root)
    truncated_image(root)
    empty_defect_folder_is_told(root)
    shutil.copy(root / "bottle/train/good/001.png", root / "bottle/test/good/000.png")
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    for file, side in (("train/good/003.png", 96), ("test/good/001.png", 64)):
        rough.resize((side, side), Image.Resampling.BICUBIC).save(root / "bottle" / file)
    findings, summary = verify(DataConfig(root=str(root)))
    found = {
        (f.level, f.code): Path(f.path).relative_to(root).as_posix() for f in findings if f.code != "near-duplicate"
    }
    assert found == {
        ("error", "left-out"): BAD,
        ("error", "unreadable"): GOOD,
        ("warning", "remark"): "bottle/test/broken_huge",
        ("warning", "duplicate"): "bottle/train/good/001.png",  # the split puts both on one side
    }
    (near,) = (f for f in findings if f.code == "near-duplicate")
    assert near.level == "error"
    assert "other side of the split" in near.message
    assert {Path(near.path).name, Path(near.message.split(",")[0]).name} == {"003.png", "001.png"}
    assert summary["error"] == sum(f.level == "error" for f in findings)


def test_images_of_one_group_are_no_duplicates_worth_telling(tmp_path):
    open_dataset("folder").example(tmp_path)
    picture = Image.open(tmp_path / "photos/bad 0.jpg")
    again = io.BytesIO()
    picture.save(again, "JPEG", quality=70)
    (tmp_path / "photos/bad 1.jpg").write_bytes(again.getvalue())
    assert verify(DataConfig(dataset="folder", root=str(tmp_path)))[0] == []
    (tmp_path / "photos/bad 2.jpg").write_bytes(again.getvalue())
    codes = {f.code for f in verify(DataConfig(dataset="folder", root=str(tmp_path)))[0]}
    assert codes & {"duplicate", "near-duplicate"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        open_dataset("mvtec").example(tmp_path / "x")
