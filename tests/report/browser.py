"""A page in a real browser: Debian's Chromium without a window, over its DevTools pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REASON = (
    "needs Debian's chromium, which is not installed here (apt-get install chromium): the page is "
    "checked by the other tests, and not in a browser"
)
EVIL = "<script>window.hacked=1;alert(1)</script><img src=x onerror=window.hacked=1>"
"""A value of the data as nobody wants it: on a page it must be text."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 180
"""Seconds: a busy machine may take long to start it."""
MEASURED = """JSON.stringify({
  title: document.title,
  text: document.body.innerText,
  html: document.documentElement.outerHTML,
  width: document.documentElement.clientWidth,
  scroll: document.documentElement.scrollWidth,
  scripts: document.scripts.length,
  images: [...document.images].map(image => image.complete ? image.naturalWidth : 0),
  tables: [...document.querySelectorAll('table')].map(table => table.rows.length),
  dots: document.querySelectorAll('svg circle > title').length,
  ids: [...document.querySelectorAll('[id]')].map(element => element.id),
  over: [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.wide, pre') && e.getBoundingClientRect().right >
      document.documentElement.clientWidth + 1)
    .map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 40)),
  operable: [...document.querySelectorAll('a[href], button, summary, input, select, [tabindex]')]
    .filter(e => e.checkVisibility() && (e.matches('summary') || !e.closest('details:not([open])')))
    .length,
  ran: typeof window.hacked,
})"""


@dataclass
class Seen:
    """What a browser made of a page, and what it said meanwhile.

    Attributes:
        measured: see `MEASURED`.
        requests: addresses that were asked for.
        problems: console messages, exceptions, dialogs that opened.
        picture: a screenshot, PNG.
    """

    measured: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    picture: bytes = b""


def found() -> str:
    """The browser's path; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip(REASON)
    return path


def look(page: Path, profile: Path, *, width: int = 390, height: int = 844) -> Seen:
    """Open a file as a screen of that width shows it, and write down what happens."""
    with _started(found(), profile) as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        pipe.session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            pipe.call(f"{domain}.enable")
        pipe.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        pipe.call("Page.navigate", url=page.as_uri())
        pipe.until("Page.loadEventFired")
        result = pipe.call("Runtime.evaluate", expression=MEASURED, returnByValue=True)
        measured = json.loads(result["result"]["value"])
        measured["tabbed"] = _tabbed(pipe, measured["operable"])
        shot = pipe.call("Page.captureScreenshot", captureBeyondViewport=True)
        return Seen(
            measured,
            pipe.seen.requests,
            pipe.seen.problems,
            base64.b64decode(shot["data"]),
        )


FOCUSED = """(() => {
  const e = document.activeElement, style = getComputedStyle(e);
  if (e === document.body) return null;
  window.places ??= new Map();
  if (!window.places.has(e)) window.places.set(e, window.places.size);
  return JSON.stringify([window.places.get(e),
    style.outlineStyle !== 'none' || style.boxShadow !== 'none']);
})()"""


def _tabbed(pipe: _Pipe, operable: int) -> list[bool]:
    """Pressing Tab through the page: of each element that gets the focus, whether one sees it."""
    seen: dict[int, bool] = {}
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    for _ in range(operable + 2):
        for kind in ("rawKeyDown", "keyUp"):
            pipe.call("Input.dispatchKeyEvent", type=kind, **key)
        at = pipe.call("Runtime.evaluate", expression=FOCUSED, returnByValue=True)["result"]
        if at.get("value") is not None:
            place, visible = json.loads(at["value"])
            seen[place] = visible
    return list(seen.values())


class _Pipe:
    """Commands out, answers and events in: JSON between NUL bytes."""

    def __init__(self, out: int, come: int) -> None:
        self.out, self.come = out, come
        self.session: str | None = None
        self.seen = Seen()
        self._count = 0
        self._left = b""

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def until(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self.come], [], [], PATIENCE)
            assert ready, f"the browser said nothing for {PATIENCE} s"
            part = os.read(self.come, 1 << 16)
            assert part, "the browser ended"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.seen.requests.append(told["request"]["url"])
        elif method == "Log.entryAdded":
            self.seen.problems.append(told["entry"]["text"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.seen.problems.append(f"{method}: {told}")
        elif method == "Page.javascriptDialogOpening":
            self.seen.problems.append(f"a dialog: {told['message']}")
            os.write(
                self.out,
                json.dumps(
                    {
                        "id": 0,
                        "sessionId": self.session,
                        "method": "Page.handleJavaScriptDialog",
                        "params": {"accept": True},
                    }
                ).encode()
                + b"\0",
            )


@contextmanager
def _started(browser: str, profile: Path) -> Iterator[_Pipe]:
    """The browser reads commands at its file 3 and answers at 4 (of bash: sh knows few numbers)."""
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    flags = " ".join((*FLAGS, f"--user-data-dir='{profile}'"))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {browser} {flags} 3<&{their_in} 4>&{their_out}"],
        pass_fds=(their_in, their_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield _Pipe(our_out, our_in)
    finally:
        os.close(our_out)
        os.close(our_in)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
