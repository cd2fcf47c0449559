"""Runs, pairs, exports and datasets on an S3 store: a real server on this machine, reached through pyarrow.fs.

The server is moto's, which speaks S3 over HTTP; nothing on our side of the wire is replaced.
"""

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs as pafs

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.registry import DatasetError, open_dataset
from dhdiff_ray.data.split import Split, split_as
from dhdiff_ray.pairs.archives import read_rows
from dhdiff_ray.pairs.export import export
from dhdiff_ray.pairs.intact import archives_found, looked_through, marker_row
from dhdiff_ray.pairs.lots import ArchiveUnit
from dhdiff_ray.pairs.writer import Encoded, PairWriter, pair_row, read_pair, read_pair_rows, write_card
from dhdiff_ray.records import Pair, Request
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.folder import RunFolder


@pytest.fixture(scope="module")
def server():
    """Host and port of an S3 server."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, request, monkeypatch):
    """An empty bucket as a function: bucket(path) -> its URI."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    options = f"endpoint_override=http%3A%2F%2F{server}&region=us-east-1"
    store = pafs.S3FileSystem(endpoint_override=f"http://{server}", region="us-east-1", allow_bucket_creation=True)
    store.create_dir(name)
    return lambda path: f"s3://{name}/{path}?{options}"


def pairs_in(run):
    writer, requests = PairWriter(run), []
    for index in range(3):
        request = Request("mesh", "bent", index, 7 + index, "a mesh with bent", "a.png", "b.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[3:9, 2 : 5 + index] = 255
        writer.write_pair(Pair(request, np.full((16, 16, 3), 40 * index, np.uint8), mask))
        requests.append(request)
    writer.finish("mesh", requests, {"weights_sha256": "x"})
    write_card(writer.folder)
    return requests


def test_a_run_on_s3_is_written_read_listed_and_deleted(bucket, tmp_path):
    run = RunFolder.of(bucket("runs"), "first")
    assert not run.is_local
    assert not run.exists("config.json")
    run.write_json("config.json", {"a": "ü"})
    run.write_bytes("models/mesh/weights.bin", b"12")
    run.write_bytes("models/mesh/weights.bin", b"345")
    assert run.read_json("config.json") == {"a": "ü"}
    assert list(run.files()) == ["config.json", "models/mesh/weights.bin"]
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("hello")
    run.upload(tmp_path / "card", "models/capsule")
    assert (run.local("models/capsule") / "README.md").read_text() == "hello"
    with run.fetched("models/capsule") as copy:
        assert (copy / "README.md").read_text() == "hello"
    assert not copy.exists(), "nothing is left in the temporary folder"
    assert run.folders("models") == ["capsule", "mesh"]
    assert {size for size, date in run.stamps("models/mesh").values() if date} == {3}
    run.delete("models/mesh")
    assert list(run.files("models")) == ["models/capsule/README.md"]
    with pytest.raises(FileNotFoundError, match="nothing"):
        run.read_bytes("nothing")


def test_pairs_on_s3_are_those_on_a_disk_and_can_be_exported_from_there(bucket, tmp_path):
    far, near = RunFolder.of(bucket("runs"), "first"), RunFolder.of(str(tmp_path), "first")
    for run in (far, near):
        pairs_in(run)
    assert list(far.files()) == list(near.files())
    assert all(far.read_bytes(name) == near.read_bytes(name) for name in near.files())
    rows = read_pair_rows(far, "mesh")
    assert [row["seed"] for row in rows] == [7, 8, 9]
    np.testing.assert_array_equal(read_pair(far, rows[0])[0], read_pair(near, rows[0])[0])
    there, here = RunFolder.at(bucket("shards")), RunFolder.at(str(tmp_path / "shards"))
    export(far, there, "webdataset")
    export(near, here, "webdataset")
    assert there.read_bytes("pairs-000000.tar") == here.read_bytes("pairs-000000.tar")


def archived(run):
    """Pairs 0 to 2 of a defect in one archive; its unit."""
    unit = ArchiveUnit("mesh", "bent", 0, 0, 3, {"control": None, "weights_sha256": "x", "split_digest": "y"})
    pairs = []
    for index in range(3):
        request = Request("mesh", "bent", index, 7 + index, "a mesh with bent", "a.png", "b.png")
        mask = np.full((16, 16), 255 * (index % 2), np.uint8)
        pair = Encoded.of(Pair(request, np.full((16, 16, 3), 40 * index, np.uint8), mask))
        pairs.append((pair_row(request) | unit.told, (pair.image, pair.mask)))
    unit.write(run, pairs)
    return unit


def test_an_archive_on_s3_is_that_on_a_disk_and_one_that_was_cut_short_is_noticed(bucket, tmp_path):
    far, near = RunFolder.of(bucket("runs"), "first"), RunFolder.of(str(tmp_path), "first")
    for run in (far, near):
        unit = archived(run)
        assert unit.is_there(run)
    assert list(far.files()) == list(near.files())
    assert all(far.read_bytes(name) == near.read_bytes(name) for name in near.files())
    row = read_rows(far, "pairs/mesh", unit.archive)[2]
    np.testing.assert_array_equal(read_pair(far, row)[0], np.full((16, 16, 3), 80, np.uint8))
    assert [list(archives_found(run, "mesh").whole) for run in (far, near)] == [["bent/000000"]] * 2
    tar = "pairs/mesh/bent/000000.tar"
    whole = far.read_bytes(tar)
    far.write_bytes(tar, whole[:5000])
    assert archives_found(far, "mesh").damaged == {tar: f"5000 bytes, not {len(whole)}"}
    with pytest.raises(DamagedError, match=rf"{tar} is damaged .*submit synthesize"):
        read_pair(far, row)


def test_a_dataset_on_s3_is_copied_once_and_its_split_finds_it_again(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("DHDIFF_CACHE", str(tmp_path / "cache"))
    open_dataset("mpdd").example(tmp_path / "data")
    uri = bucket("mpdd")
    RunFolder.at(bucket("")).upload(tmp_path / "data", "mpdd")
    root = local_root(uri)
    split = split_as(DataConfig(dataset="mpdd", root=uri), 0, open_dataset("mpdd").scan(root))
    written = split.to_json()
    (root / ".whole").unlink()  # as on another machine: nothing is there yet
    for file in root.rglob("*.png"):
        file.unlink()
    again = Split.from_json(written)
    assert (again.train, again.test) == (split.train, split.test)
    again.check(uri)
    with pytest.raises(DatasetError, match="nowhere"):
        local_root(bucket("nowhere"))


def test_options_of_a_uri_stay_at_its_end():
    run = RunFolder.of("s3://b/runs/?region=x", "first")
    assert run.uri == "s3://b/runs/first?region=x"
    assert run.below("checkpoints").uri == "s3://b/runs/first/checkpoints?region=x"
    assert RunFolder.of("s3://b/runs/", "first").uri == "s3://b/runs/first"


def test_on_s3_a_job_compares_sizes_and_verify_reads(bucket):
    run = RunFolder.of(bucket("runs"), "looked")
    requests = pairs_in(run)
    rows = []
    for request, row in zip(requests, read_pair_rows(run, "mesh"), strict=True):
        promises = Encoded.of(Pair(request, *read_pair(run, row))).promises
        rows.append(marker_row({"index": request.index, "seed": request.seed, "attempt": 0}, promises))
    run.write_json("synthesis/mesh/bent/000000.json", rows)
    run.write_json("synthesis/mesh.json", {"kept": "first"})
    name = "pairs/mesh/test/bent/000001.png"
    data = bytearray(run.read_bytes(name))
    data[len(data) // 2] ^= 1
    run.write_bytes(name, bytes(data))
    assert not looked_through(run, "mesh").damaged
    assert looked_through(run, "mesh", read=True).damaged == {name: "another content than was written"}
    run.write_bytes(name, bytes(data)[:-1])
    assert list(looked_through(run, "mesh").damaged) == [name]
