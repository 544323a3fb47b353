"""`medcl push` and `medcl pull` against a small server that answers as the Hub does."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import medcl
from medcl import export as exporting
from medcl.errors import MedclError, UsageError
from medcl.manifest import DamagedError
from medcl.run import Run
from medcl_cli.main import app

hub = pytest.importorskip("huggingface_hub", reason="the extra hf is not installed")
NAME, SHA = "me/digits", "a" * 40
JSON = "application/json"


class Hub(BaseHTTPRequestHandler):
    """One repository in memory; ``status`` other than 200 is the answer to everything."""

    files: dict[str, bytes]
    created: list[dict[str, object]]
    status = 200

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self, body: object, kind: str = JSON, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(self.status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        here = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.created.append(json.loads(sent))
            self.answer({"url": f"{here}/{NAME}", "name": NAME, "id": NAME})
        elif "/preupload/" in self.path:
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            paths = [file["path"] for file in json.loads(sent)["files"]]
            self.answer({"files": [{"path": path, **modes} for path in paths]})
        elif "/commit/" in self.path:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[line["value"]["path"]] = content
            self.answer({"commitUrl": f"{here}/{NAME}/commit/{SHA}", "commitOid": SHA})
        else:  # the check of the card's header
            self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/resolve/" in path:
            content = self.files.get(path.rpartition("/")[2], b"")
            of = {"ETag": f'"{len(content)}-{path[-9:]}"', "X_Repo_Commit": SHA}
            self.answer(content, "application/octet-stream", **of)
        elif "/tree/" in path:
            self.answer(
                [
                    {"type": "file", "path": n, "size": len(b), "oid": SHA}
                    for n, b in self.files.items()
                ]
            )
        else:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": NAME, "sha": SHA, "private": True, "siblings": siblings})

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    class Mine(Hub):
        """The repository of one test."""

    Mine.files, Mine.created = {}, []
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{serving.server_port}"
    monkeypatch.setattr(hub, "HfApi", partial(hub.HfApi, endpoint=at))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield Mine
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def encoder(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "encoder"
    exporting.export(digits_run, out, to="huggingface-folder")
    return out


def test_what_is_pushed_is_pulled(
    server: type[Hub], encoder: Path, digits_run: Run, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(encoder, mine)
    (mine / "patients.csv").write_text("name\nJane Doe\n")
    pushed = CliRunner().invoke(app, ["push", str(mine), NAME, "--json"], catch_exceptions=False)
    assert json.loads(pushed.output)["commit"].endswith(f"/{NAME}/commit/{SHA}")
    assert set(server.files) == {path.name for path in encoder.iterdir()}
    assert server.created[0].get("visibility", "private") == "private"
    assert server.created[0].get("private", True) is True
    out = tmp_path / "pulled"
    pulled = CliRunner().invoke(app, ["pull", NAME, "--out", str(out)], catch_exceptions=False)
    assert pulled.exit_code == 0
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(medcl.load_encoder(out)(x), digits_run.encoder()(x))
    assert {path.name for path in out.iterdir()} == {path.name for path in encoder.iterdir()}


def test_public_only_when_asked(server: type[Hub], encoder: Path) -> None:
    medcl.push(encoder, NAME, public=True)
    made = server.created[0]
    assert "public" in (made.get("visibility"), "public" if made.get("private") is False else "")


def test_damage_on_the_way_is_noticed(server: type[Hub], encoder: Path, tmp_path: Path) -> None:
    medcl.push(encoder, NAME)
    server.files["model.safetensors"] = server.files["model.safetensors"][:-1] + b"?"
    with pytest.raises(DamagedError, match="Pull it again"):
        medcl.pull(NAME, tmp_path / "out")
    del server.files["manifest.json"]
    with pytest.raises(MedclError, match="no manifest"):
        medcl.pull(NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_pushed(digits_run: Run, server: type[Hub]) -> None:
    with pytest.raises(UsageError, match="not an exported encoder"):
        medcl.push(digits_run.path, NAME)
    assert not server.files


@pytest.mark.parametrize(("status", "says"), [(401, "log"), (403, "hf auth login"), (400, "400")])
def test_refusals_are_one_sentence(
    server: type[Hub], encoder: Path, tmp_path: Path, status: int, says: str
) -> None:
    server.status = status
    with pytest.raises(MedclError, match=says):
        medcl.push(encoder, NAME)
    with pytest.raises(MedclError, match=NAME):
        medcl.pull(NAME, tmp_path / "out")


def test_offline_is_said(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(hub, "HfApi", partial(hub.HfApi, endpoint=closed))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with pytest.raises(MedclError, match="cannot be reached"):
        medcl.push(encoder, NAME)
    with pytest.raises(MedclError, match="cannot be reached"):
        medcl.pull(NAME, tmp_path / "out")
    with pytest.raises(UsageError, match="OWNER/NAME"):
        medcl.push(encoder, "not a / name")
