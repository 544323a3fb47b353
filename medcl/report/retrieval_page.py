"""The page of similar cases with their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medcl.io.atomic import write_text
from medcl.plugin import Samples
from medcl.report.finish import finished
from medcl.report.pictures import of_sample
from medcl.retrieval.search import Found


def write(found: Found, samples: Samples, out: Path) -> Path:
    """Write one self-contained HTML page.

    Args:
        found: the search result.
        samples: the searched samples, in order.
        out: the file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medcl.report", "."), autoescape=True, undefined=StrictUndefined
    )
    asked = next(
        (p for p, key in enumerate(samples.ids) if key == found.query),
        next((p for p, item in enumerate(samples.items) if item == found.query), None),
    )
    page = environment.get_template("search.html.j2").render(
        found=found,
        asked={"picture": _picture(samples, asked)} if asked is not None else None,
        cases=[
            (hit, _picture(samples, hit.position), _located(samples, hit.position))
            for hit in found.hits
        ],
    )
    write_text(out, finished(page))
    return out


def _located(samples: Samples, position: int) -> dict[str, str]:
    """Where the sample that matched lies in its item, as far as the plugin says."""
    if samples.where is None:
        return {}
    columns = samples.where(np.array([position]))
    return {n: _shown(np.asarray(v)[0]) for n, v in columns.items() if n != "sample"}


def _shown(value: object) -> str:
    """A number in six digits; a word, such as a unit, as it is."""
    return f"{value:.6g}" if isinstance(value, np.number) else str(value)


def _picture(samples: Samples, position: int) -> str | None:
    """None for samples without a picture, such as bags."""
    try:
        return of_sample(samples, position)
    except ValueError:
        return None
