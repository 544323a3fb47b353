"""Reading medcl's own files: a missing or damaged one is one clear error, not a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from medcl import manifest
from medcl.errors import MedclError


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object, verified by its folder's manifest.

    Raises:
        MedclError: if the file is missing, damaged or holds no object; names it and ``remedy``.
    """
    manifest.check(path, remedy)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedclError(f"{path} is missing. {remedy}") from None
    except OSError as error:
        raise MedclError(f"{path} cannot be read ({error.strerror}). {remedy}") from None
    except ValueError:  # no JSON, or no text at all
        value = None
    if not isinstance(value, dict):
        raise manifest.DamagedError(f"{path} is damaged: it holds no JSON object. {remedy}")
    return value


def read_table(path: Path, remedy: str) -> pl.DataFrame:
    """A Parquet table, verified by its folder's manifest.

    Raises:
        MedclError: if the file is missing, damaged or no Parquet; names it and ``remedy``.
    """
    manifest.check(path, remedy)
    try:
        return pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise MedclError(f"{path} is missing. {remedy}") from None
    except (OSError, pl.exceptions.PolarsError):
        raise manifest.DamagedError(
            f"{path} is damaged: it cannot be read as Parquet. {remedy}"
        ) from None
