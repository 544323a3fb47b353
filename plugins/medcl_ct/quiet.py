"""pydicom without its remarks: its warnings and log quote values of headers, such as UIDs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("pydicom")


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warns nor logs what it finds odd; errors are raised as ever."""
    was, _LOG.disabled = _LOG.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _LOG.disabled = was
