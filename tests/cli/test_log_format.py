"""`--log-format json`: what is said on standard error is one JSON object a line; doctor's lists."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from medcl.io import log
from medcl_cli.main import main


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["medcl", *words])
    monkeypatch.setenv(log.FORMAT, "text")  # given back at the end, whatever is set meanwhile
    with pytest.raises(SystemExit) as exit:
        main()
    return int(exit.value.code or 0)


def test_an_error_is_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "biosignals/demo", "--data", str(tmp_path / "nothing")]
    assert ended(["--log-format", "json", *words], monkeypatch) == 2
    assert os.environ[log.FORMAT] == "json"  # for worker processes
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["exit_code"]) == ("error", 2)
    assert said["message"].startswith(f"{tmp_path / 'nothing'} is not an index.")
    assert ended(words, monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"medcl: {tmp_path / 'nothing'} is not an index.")


def test_doctor_lists_licences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["doctor", "--licences"], monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "Under the GPL or AGPL: " in shown or "Nothing is under the GPL" in shown
    assert ended(["doctor", "--licences", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"


def test_audit_phi_ends_with_1_if_anything_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "archive" / "Doe_Jane").mkdir(parents=True)
    (tmp_path / "archive" / "Doe_Jane" / "1234567.csv").write_text("1,2\n" * 8)
    (tmp_path / "out").mkdir()
    words = ["audit-phi", str(tmp_path / "out"), "--against", str(tmp_path / "archive")]
    words += ["--plugin", "toy"]
    (tmp_path / "out" / "table.csv").write_text("a,b\n")
    assert ended(words, monkeypatch) == 0
    (tmp_path / "out" / "table.csv").write_text("a,Doe_Jane\n")
    capsys.readouterr()
    assert ended([*words, "--json"], monkeypatch) == 1
    (leak,) = json.loads(capsys.readouterr().out)["leaks"]
    assert leak == {"file": "table.csv", "kind": "folder name", "how": "as it is", "values": 1}
