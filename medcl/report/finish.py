"""What every page gets after it is rendered: a table of contents, and figures and tables to save.

The page runs no script, so what is saved lies in the links themselves, as data URIs.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from html.parser import HTMLParser

from medcl.io.cells import safe

_SECTION = re.compile(r'<section id="([\w-]+)">\s*<h2>(.*?)</h2>', re.DOTALL)
_SVG = re.compile(r'<img src="(data:image/svg\+xml;base64,[^"]+)" alt="([^"]*)">')
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)


def finished(page: str) -> str:
    """A rendered page with its contents and its links to save figures as SVG and tables as CSV."""
    head, mark, body = page.partition("</header>")
    if not mark:
        return page
    names = _SECTION.findall(body)
    links = "".join(f'<li><a href="#{anchor}">{_plain(title)}</a></li>' for anchor, title in names)
    contents = f'\n<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(names) > 1 else ""
    body = _SVG.sub(
        lambda m: m[0] + _link(m[1], f"{_file(m[2])}.svg", "SVG", f"Save the figure: {m[2]}"), body
    )
    body = _TABLE.sub(lambda m: m[0] + _csv_link(m[0]), body)
    return head + mark + contents + body


def csv_uri(text: str) -> str:
    """A CSV as a data URI."""
    return "data:text/csv;base64," + base64.b64encode(text.encode("utf-8")).decode("ascii")


def _csv_link(table: str) -> str:
    rows = _Cells(table).rows
    if len(rows) < 2:
        return ""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([safe(text) for text in row] for row in rows)
    name = _file("-".join(rows[0][:2])) or "table"
    return _link(csv_uri(buffer.getvalue()), f"{name}.csv", "CSV", "Save the table")


def _link(uri: str, name: str, text: str, label: str) -> str:
    return f'<a class="save" download="{name}" href="{uri}" aria-label="{label}">{text}</a>'


def _plain(title: str) -> str:
    """A heading without its elements; it is escaped already."""
    return re.sub(r"<[^>]+>", "", title).strip()


def _file(text: str) -> str:
    return re.sub(r"[^\w]+", "-", html.unescape(text)).strip("-").lower()[:60]


class _Cells(HTMLParser):
    """The texts of a table's cells, row by row; a second line of a cell follows in brackets."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(table)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A new row or cell."""
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "small" and self.rows and self.rows[-1] and self.rows[-1][-1]:
            self.rows[-1][-1] += " "

    def handle_data(self, data: str) -> None:
        """Text of the cell."""
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()
