"""Archives on object storage: S3 and Google by moto, Azure by Azurite, HTTP by a small server."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny_engine
from tiny_engine import TINY

from medcl.archive.index import Index, build
from medcl.archive.scanning import scan_unit
from medcl.archive.store import prepare
from medcl.archive.walk import walk
from medcl.engine.pretrain import pretrain
from medcl.errors import MedclError, UsageError
from medcl.io import storage
from medcl.plugin import FileStat, Record, Reject, Unit
from medcl_cli import main

SECRET = "a-secret-that-no-file-holds"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        (Path("s3://bucket/a/"), "s3://bucket/a"),
        (Path("https://host/set/SHA256SUMS.txt"), "https://host/set/SHA256SUMS.txt"),
        ("gs://b", "gs://b"),
        ("S3://Bucket/A", "s3://Bucket/A"),
        ("az://container/path", "az://container/path"),
        ("abfss://c@account.dfs.core.windows.net/p", "abfss://c@account.dfs.core.windows.net/p"),
        ("/data/s3:/x", None),
        (Path("s3"), None),
        ("C:/x", None),
    ],
)
def test_what_is_an_address(given: Any, expected: str | None) -> None:
    assert storage.address(given) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://me:pw@host/x.txt",
        "https://host/x.txt?sig=abc",
        "abfss://me:pw@host/x",
        "az://c/p?abc",
    ],
)
def test_an_address_holds_no_credentials(url: str) -> None:
    with pytest.raises(UsageError, match="environment variables") as caught:
        storage.address(url)
    assert "pw" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "hdfs://name/x", "file:///x"])
def test_addresses_of_other_kinds_are_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no address that medcl reads: s3://BUCKET"):
        build(Path(url), tmp_path / "idx", TINY)


def test_outputs_lie_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address made a folder named 's3:' here, in silence."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="this machine's file systems"):
        build(tmp_path, Path("s3://bucket/idx"), TINY)
    for words in (["--out", "s3://bucket/run"], ["-o", "gs://b/x"], ["--out=az://c/x", "more"]):
        with pytest.raises(UsageError, match="this machine's file systems"):
            main._refuse_outputs_elsewhere(["medcl", "pretrain", *words])
    main._refuse_outputs_elsewhere(["medcl", "index", "s3://bucket/x", "--out", "idx"])
    assert not list(tmp_path.iterdir())


def test_obstore_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'medcl\[object-storage\]'"):
        build(Path("s3://bucket"), tmp_path / "idx", TINY)


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, whole or by ranges; counts the bytes that it gave."""

    given = 0
    ranges = True

    def do_GET(self) -> None:
        file = Path(self.directory) / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(found[1]) : int(found[2]) + 1] if found and self.ranges else data
        type(self).given += len(part)
        self.send_response(206 if found and self.ranges else 200)
        if found and self.ranges:
            end = int(found[1]) + len(part) - 1
            self.send_header("Content-Range", f"bytes {found[1]}-{end}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, type[_Ranges]]]:
    pytest.importorskip("obstore", reason="needs obstore: pip install 'medcl[object-storage]'")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (_Ranges,), {"given": 0})

    def serve(*args: Any) -> _Ranges:
        return handler(*args, directory=str(folder))  # type: ignore[no-any-return]

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}", folder, handler
    served.shutdown()
    served.server_close()


def test_files_by_a_list_over_http(server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    tiny_engine.archive(folder / "set", patients=3)
    names = sorted(path.name for path in (folder / "set").iterdir())
    sums = "".join(f"{'0' * 64} {name}\n" for name in names[:2]) + f"{names[2]}\n"
    (folder / "set/SHA256SUMS.txt").write_text(sums)
    assert [f.path for f in walk(Path(f"{url}/set/SHA256SUMS.txt")).files] == names
    build(Path(f"{url}/set/SHA256SUMS.txt"), tmp_path / "idx", TINY)
    index = Index.open(tmp_path / "idx")
    made = prepare(index, TINY, {})
    assert len(made.items) == 3
    item = made.items["id"][0]
    local = np.load(folder / "set" / index.locate(item))
    np.testing.assert_array_equal(made.arrays(item)["x"], local[:, :64])
    with pytest.raises(MedclError, match="copy them to a disk"):
        made.arrays.files(item)
    assert not list((tmp_path / "idx/private").glob(".medcl-scratch-*")), "nothing is left"
    (folder / "set/list.txt").write_text("../other\n")
    with pytest.raises(UsageError, match="outside of its folder"):
        walk(Path(f"{url}/set/list.txt"))
    with pytest.raises(UsageError, match="is no list of files"):
        walk(Path(f"{url}/set/{names[0]}"))


def _front(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """Reads a header by its first bytes, its end, and a file beside it."""
    path = root / unit.files[0].path
    with path.open("rb") as handle:
        head = handle.read(8)
        handle.seek(-4, os.SEEK_END)
        end = handle.read()
    beside = (path.parent / "about.txt").is_file() and (path.parent / "about.txt").read_text()
    lost = (path.parent / "lost.txt").exists()
    size = path.stat().st_size
    yield Record(unit.key, (unit.key,), "p", fields={"end": end.decode(), "size": size})
    if head != b"the head" or beside != "beside" or lost:
        raise ValueError("read wrongly")


def _by_name(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """As a C library opens it: by its name as text."""
    text = str(root / unit.files[0].path)
    if not os.path.exists(text):
        yield Reject(unit.key, "gone", "It is not there.")
    else:
        yield Record(unit.key, (unit.key,), "p", fields={"size": os.path.getsize(text)})


def test_a_header_costs_a_range_and_the_rest_is_downloaded_once(
    server: Any, tmp_path: Path
) -> None:
    url, folder, handler = server
    (folder / "a").mkdir()
    size = 3_000_000
    (folder / "a/big.bin").write_bytes(b"the head" + bytes(size) + b"tail")
    (folder / "a/about.txt").write_text("beside")
    unit = Unit("a/big.bin", (FileStat("a/big.bin", size + 12, 1),))
    root = storage.RemotePath.of(url, tmp_path / "scratch")
    found = scan_unit(_front, root, unit)
    assert found.rejects == ()
    assert dict(found.records[0].fields) == {"end": "tail", "size": size + 12}
    assert handler.given < 300_000
    again = pickle.loads(pickle.dumps(root / "a/big.bin"))
    assert again.stat().st_size == size + 12
    found = scan_unit(_by_name, root, unit)
    assert dict(found.records[0].fields) == {"size": size + 12}
    assert not (tmp_path / "scratch/a/big.bin").exists(), "removed once it is scanned"
    with pytest.raises(PermissionError):
        (root / "a/new").open("w")


def test_a_storage_that_fails_is_no_reject(server: Any, tmp_path: Path) -> None:
    url, folder, _ = server
    tiny_engine.archive(folder / "set", patients=2)
    (folder / "set/list.txt").write_text("p00.npy\np01.npy\n")
    address = Path(f"{url}/set/list.txt")

    def failing(root: Path, unit: Unit) -> Iterator[Record | Reject]:
        storage._failures.append("no answer")  # as a reader that catches everything leaves it
        yield Reject(unit.key, "unreadable", "It could not be read.")

    from dataclasses import replace

    with pytest.raises(UsageError, match="no answer"):
        build(address, tmp_path / "idx", replace(TINY, scan=failing))
    assert build(address, tmp_path / "idx", TINY).scanned == 2


# --- S3 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bucket of digits by 40 writers at moto's server; returns the folder it was made from."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'medcl[object-storage]'")
    pytest.importorskip("moto", reason="needs moto: make setup")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        s3.create_bucket(Bucket="hospital")
        folder = tiny_engine.archive(tmp_path_factory.mktemp("s3") / "archive")
        for path in folder.iterdir():
            s3.upload_file(str(path), "hospital", f"ward/{path.name}")
        s3.put_object(Bucket="hospital", Key="ward/.hidden", Body=b"x")
        yield folder
    server.stop()


@pytest.mark.slow
def test_from_s3_to_a_trained_encoder(bucket: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    address = Path("s3://hospital/ward")
    for workers in (1, 2):
        out = tmp_path / f"idx{workers}"
        assert build(address, out, TINY, key_file=key, workers=workers).items == 40
        again = build(address, out, TINY, key_file=key)
        assert (again.scanned, again.reused) == (0, 40)
    build(bucket, tmp_path / "here", TINY, key_file=key)
    far, near = (Index.open(tmp_path / name) for name in ("idx2", "here"))
    times = ("fingerprint",)  # an object has the time of its upload
    assert far.items.drop(times).equals(near.items.drop(times))
    made = {index.path: prepare(index, TINY, {}, workers=2) for index in (far, near)}
    for item in near.items["id"]:
        one, other = (m.arrays(item) for m in made.values())
        assert {n: a.tobytes() for n, a in one.items()} == {
            n: a.tobytes() for n, a in other.items()
        }
    runs = [
        pretrain(
            tiny_engine.recipe({"trainer": {"steps": 3}}),
            index.path,
            tmp_path / f"run-{index.path.name}",
        )
        for index in (far, near)
    ]
    weights = [(run.path / "encoder.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1], "where the files lie changes nothing"
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in held if SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
def test_another_bucket_is_another_archive(bucket: Path, tmp_path: Path) -> None:
    build(Path("s3://hospital/ward"), tmp_path / "idx", TINY)
    with pytest.raises(UsageError, match="is the index of"):
        build(bucket, tmp_path / "idx", TINY)
    with pytest.raises(UsageError, match="does not answer|holds no file"):
        build(Path("s3://nowhere/x"), tmp_path / "other", TINY)
    held = pl.read_parquet(tmp_path / "idx/private/paths.parquet")
    assert held["key"].sort().to_list()[0] == "p00.npy"


# --- Azure ----------------------------------------------------------------------------------------

# The account that every Azurite has: public, of no use elsewhere.
ACCOUNT, ACCOUNT_KEY = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A container of digits by 40 writers at Azurite; returns the folder it was made from."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'medcl[object-storage]'")
    blob = pytest.importorskip("azure.storage.blob", reason="needs pip install azure-storage-blob")
    command = os.environ.get("MEDCL_AZURITE") or shutil.which("azurite-blob")
    if command is None:
        pytest.skip("needs Azurite: npm install azurite, MEDCL_AZURITE=…/.bin/azurite-blob")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "az")]
    server = subprocess.Popen([command, "--silent", *place], stdout=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    for name, value in {
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_ALLOW_HTTP": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
    }.items():
        monkeypatch.setenv(name, value)
    for _ in range(100):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    key = {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
    client = blob.BlobServiceClient(endpoint, credential=key, api_version="2021-12-02")
    client.create_container("hospital")
    folder = tiny_engine.archive(tmp_path / "archive")
    for path in folder.iterdir():
        client.get_blob_client("hospital", f"ward/{path.name}").upload_blob(path.read_bytes())
    yield folder
    server.terminate()
    server.wait()


@pytest.mark.long
def test_from_azure_to_prepared_arrays(container: Path, tmp_path: Path) -> None:
    as_if_it_lay_here(Path("az://hospital/ward"), container, tmp_path, ACCOUNT_KEY)


def as_if_it_lay_here(address: Path, folder: Path, tmp_path: Path, secret: str) -> None:
    """Index and arrays of an address are those of the folder it was made from."""
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    assert build(address, tmp_path / "far", TINY, key_file=key, workers=2).items == 40
    again = build(address, tmp_path / "far", TINY, key_file=key)
    assert (again.scanned, again.reused) == (0, 40)
    build(folder, tmp_path / "near", TINY, key_file=key)
    far, near = (Index.open(tmp_path / name) for name in ("far", "near"))
    assert far.items.drop("fingerprint").equals(near.items.drop("fingerprint"))
    made = [prepare(index, TINY, {}) for index in (far, near)]
    for item in near.items["id"]:
        one, other = (m.arrays(item)["x"] for m in made)
        np.testing.assert_array_equal(one, other)
    held = [path for path in (tmp_path / "far").rglob("*") if path.is_file()]
    assert not [path for path in held if secret.encode() in path.read_bytes()]
    with pytest.raises(UsageError, match="does not answer|may not be read|holds no file"):
        build(Path(str(address).replace("hospital", "nowhere")), tmp_path / "other", TINY)


# --- Google ---------------------------------------------------------------------------------------


@pytest.fixture
def google(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same bucket by Google's client, which asks for lists and ranges as S3 answers them.

    No emulator of Google's storage is at hand that answers its XML interface; so signing in is not
    part of the test, and the bucket is a public one.
    """
    import boto3

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    s3.put_bucket_acl(Bucket="hospital", ACL="public-read")
    for held in s3.list_objects_v2(Bucket="hospital")["Contents"]:
        s3.put_object_acl(Bucket="hospital", Key=held["Key"], ACL="public-read")
    account = {"gcs_base_url": endpoint, "disable_oauth": True, "private_key": SECRET}
    account |= {"client_email": "", "private_key_id": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    return bucket


@pytest.mark.long
def test_from_google_to_prepared_arrays(google: Path, tmp_path: Path) -> None:
    as_if_it_lay_here(Path("gs://hospital/ward"), google, tmp_path, SECRET)
