"""What tests do to the files of a run, and what ends up in it: for tests of pairs in either layout."""

from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.lots import lot_of
from dhdiff_ray.pairs.writer import write_card


def made_again(run, categories=("capsule", "mesh"), order=1):
    """What the verb does, without a cluster; says what was damaged."""
    maker, damaged = Maker(run), {}
    for category in categories:
        lot = lot_of(run, category)
        damaged |= lot.damaged
        for unit in lot.units[::order]:
            maker(unit)
        lot.finish(run)
    write_card(run.folder)
    return damaged


def content(folder):
    """Every file of pairs and of what was written beside them."""
    return {name: folder.read_bytes(name) for part in ("pairs", "synthesis") for name in folder.files(part)}


def cut(file):
    file.write_bytes(file.read_bytes()[:50])


def halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file):
    file.write_bytes(b"")


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def deleted(file):
    file.unlink()
