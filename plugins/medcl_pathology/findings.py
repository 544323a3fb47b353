"""Problems of a slide that can be lived with: their names, and what is done about each.

The index names them; when the slide is prepared a policy decides, which recipes set by name:
``prepare: {policy: {single-level: reject}}``.
"""

from __future__ import annotations

from medcl.archive.policies import Finding

GIVE_MPP = (
    "Give it when indexing: medcl index … -s reader.mpp=0.25 (µm per pixel of the full-size image, "
    "for all slides that lack it), or -s reader.mpp_table=FILE.csv with columns key and mpp."
)


FINDINGS: dict[str, Finding] = {
    "missing-mpp": Finding(
        "serious",
        "reject",
        ("reject",),
        "does not say how large its pixels are (mpp)",
        GIVE_MPP,
    ),
    "given-mpp": Finding(
        "note", "accept", ("accept", "reject"), "did not say how large its pixels are; it was given"
    ),
    "anisotropic-mpp": Finding(
        "serious",
        "resample",
        ("resample", "reject", "accept"),
        "has pixels that are not square (more than 2 %)",
    ),
    "mpp-against-magnification": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "says a size of its pixels (mpp) that does not go with its magnification",
        GIVE_MPP,
    ),
    "unusual-mpp": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "says a size of its pixels (mpp) that scanners do not have, such as inches for centimetres",
        GIVE_MPP,
    ),
    "no-magnification": Finding(
        "note", "accept", ("accept", "reject"), "does not name its objective's magnification"
    ),
    "single-level": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "has one level only, so that its overview is slow to make",
    ),
    "unscaled-tile": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "is a tile that does not say how large its pixels are",
    ),
    "copy": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "holds the same bytes as another; both count as the same patient's",
    ),
    "copy-of-another-patient": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "holds the same bytes as one of another patient: one of the two patients is wrong",
    ),
    "no-patient-id": Finding(
        "note", "accept", ("accept", "reject"), "names no patient; it was taken for one of its own"
    ),
}
