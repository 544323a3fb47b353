"""Files that a plugin does not take: how many of each suffix, and what can be done about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

_UNPACK = "unpack it into the archive: what is in it is then looked at"
_TABLE = "if it holds patients or labels: --table FILE"
_PRINTED = "a document or picture for people: nothing to do"
_FILM = "a film or sound: nothing to do"
GENERAL: Mapping[str, str] = {
    **dict.fromkeys((".7z", ".rar", ".zip", ".gz", ".tar", ".tgz", ".xz", ".bz2"), _UNPACK),
    **dict.fromkeys((".csv", ".tsv", ".parquet", ".xls", ".xlsx"), _TABLE),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".ppt", ".pptx", ".html", ".htm"), _PRINTED),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".svg"), _PRINTED),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".wav"), _FILM),
    **dict.fromkeys((".txt", ".md", ".rst", ".log"), "notes: nothing to do"),
    **dict.fromkeys((".json", ".yaml", ".yml", ".xml"), "settings or descriptions: nothing to do"),
    "none": "a name without suffix: give it the suffix of its format",
    "another": "of no known suffix: if it is a recording, convert it to a format that is read",
}
"""Suffix → what to do, in any modality; a plugin's own hints (`Plugin.hints`) come first."""
_OTHERWISE = "not of this modality, by its name"
_WORDS = """
    txt md rst csv tsv xls xlsx json xml yaml yml toml htm html pdf doc docx ppt pptx py ipynb sh
    bat exe dll js css log ini cfg inf png jpg jpeg gif bmp tif tiff svg mp4 avi mov npy npz mat h5
    hdf5 parquet pt pth bval bvec 7z rar zip gz tar tgz xz bz2 sqlite db dcm nii mha mhd nrrd raw
    img hdr edf bdf dat hea atr svs ndpi mrxs ini wav pkl pickle md5 sha256 sum lock tmp bak
    dicom ima fit avro gpx tcx
"""
_SUFFIXES = frozenset(f".{word}" for word in _WORDS.split())


def counted(paths: Iterable[str], hints: Mapping[str, str]) -> dict[str, int]:
    """Suffix → files; what is no known suffix may be a part of a person's name: "another".

    Args:
        paths: of the files.
        hints: the plugin's own.
    """
    known = _SUFFIXES | hints.keys()
    suffixes = (PurePosixPath(path).suffix.lower() for path in paths)
    named = (s if s in known else "another" if s else "none" for s in suffixes)
    return dict(sorted(Counter(named).items()))


def advice(suffix: str, hints: Mapping[str, str]) -> str:
    """What to do with files of a suffix."""
    return hints.get(suffix) or GENERAL.get(suffix) or _OTHERWISE
