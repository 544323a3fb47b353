"""Problems of a series that can be lived with: their names, and what is done about each.

What nobody wants in a training set of CT (another modality, a localiser, a coloured screenshot) is
a reject of the index. Everything else is a finding (`medcl.archive.policies`).
"""

from __future__ import annotations

from medcl.archive.policies import Finding

FINDINGS: dict[str, Finding] = {
    "single-slice": Finding(
        "note", "accept", ("accept", "reject"), "has one slice; it is used in 2D, never as a volume"
    ),
    "gantry-tilt": Finding(
        "serious",
        "resample",
        ("resample", "reject", "accept"),
        "was scanned with a tilted gantry: its slices are shifted against each other",
    ),
    "missing-slices": Finding(
        "serious",
        "split",
        ("split", "resample", "reject", "accept"),
        "lacks slices: a gap is a multiple of the spacing",
    ),
    "non-uniform-spacing": Finding(
        "serious",
        "split",
        ("split", "resample", "reject", "accept"),
        "has distances between slices that differ by more than 10 %",
    ),
    "uneven-spacing": Finding(
        "note",
        "accept",
        ("accept", "resample", "reject"),
        "has distances between slices that differ by 1 to 10 %",
    ),
    "mixed-thickness": Finding(
        "serious", "split", ("split", "reject", "accept"), "mixes slice thicknesses"
    ),
    "repeated-positions": Finding(
        "serious",
        "split",
        ("split", "reject"),
        "holds several passes or phases over one part of the body; each is an item of its own",
    ),
    "ambiguous-passes": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "seems to hold several passes or phases, and nothing says which slice belongs to which",
    ),
    "mixed-series": Finding(
        "serious",
        "split",
        ("split", "reject"),
        "mixes orientations, sizes, kernels or kinds of image; each is an item of its own",
    ),
    "duplicate-slices": Finding(
        "note", "accept", ("accept", "reject"), "holds copies of slices, which were left out"
    ),
    "repeated-uid": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "has one SOPInstanceUID in several slices; they were told apart by place and pixels",
    ),
    "copies-differ": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "holds copies of slices with other pixels; the fullest of each was kept",
    ),
    "oblique": Finding(
        "note", "accept", ("accept", "reject"), "lies oblique to the body by more than 10 degrees"
    ),
    "multi-frame": Finding(
        "note", "accept", ("accept", "reject"), "keeps all its slices in one file"
    ),
    "derived": Finding("note", "accept", ("accept", "reject"), "was computed from another series"),
    "reformatted": Finding(
        "note", "accept", ("accept", "reject"), "was reformatted from another series"
    ),
    "projection": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "is a projection or rendering, whose values are no attenuation of a place",
    ),
    "no-rescale": Finding(
        "serious", "reject", ("reject", "accept"), "does not say how its values become HU"
    ),
    "not-hu": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "is not in HU: its header says so, or no value is as low as air",
    ),
    "like-hu": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "has values as low as air in HU, as CT has and neither MR nor PET",
    ),
    "like-mask": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "has few values, all whole numbers, as a mask has; nothing in its name says that it is one",
    ),
    "modality-from-name": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "does not say what it is; its name or its data set's says so",
    ),
    "modality-assumed": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "does not say whether it is CT, MR or PET: it was taken for what the recipe prepares",
    ),
    "not-magnitude": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "is a phase, real or imaginary image of MR, no magnitude",
    ),
    "no-suv": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "does not say how its values become SUV; they were scaled by percentiles",
    ),
    "grey-not-hu": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "holds grey values without a unit, laid on -160 to 240 as if they were HU",
    ),
    "guessed-window": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "holds grey values of a window of HU that is not published; a usual one was taken",
    ),
    "no-position": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "does not say where its slices lie; they were ordered by their numbers",
    ),
    "no-affine": Finding(
        "serious", "reject", ("reject", "accept"), "does not say how it lies in the body"
    ),
    "no-series-uid": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "has no SeriesInstanceUID; its slices were joined by study, orientation and spacing",
    ),
    "no-patient-id": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "names no patient; its study, folder or file was taken for one: --patient-from or --table",
    ),
    "padding-like-tissue": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "marks what was not scanned by a value that tissue has: only what meets the border is cut",
    ),
    "blank": Finding("serious", "reject", ("reject", "accept"), "is blank: all its values are one"),
    "blank-slices": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has slices of one value only: they were padded, or their pixels were lost",
    ),
    "black-frame": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "lies in a frame of one value, as cropped or padded volumes do; no frame passes for body",
    ),
    "patient-spellings": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has a patient whose id is another patient's in another spelling: --merge-spellings",
    ),
    "two-sexes": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has a patient who is F in one series and M in another: two people may have one id",
    ),
    "shared-series": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has a SeriesInstanceUID that other patients have too; each patient's slices are an item",
    ),
    "patient-from-layout": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "has its patient from the layout of a public data set: --patient-from or --table say other",
    ),
    "patient-in-folders": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has a patient whose name is another folder's too; each folder's was taken for a person of "
        "its own: --patient-from or --table say other",
    ),
    "mask-names": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has masks by names that are not TotalSegmentator's: numbered by name, item by item",
    ),
    "sparse-contours": Finding(
        "serious",
        "accept",
        ("accept", "reject"),
        "has contours on every second slice or fewer; the slices between them have no label",
    ),
    "mask-by-frame": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "has masks that name no series; they went with the one that shares their space",
    ),
    "converted-units": Finding(
        "note", "accept", ("accept", "reject"), "gave its spacing in another unit; it is in mm now"
    ),
    "odd-spacing": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "has voxels that no CT has; its spacing may be in another unit than it says",
    ),
    "qform-sform": Finding(
        "serious",
        "reject",
        ("reject", "accept"),
        "names two orientations or spacings (qform, sform): left may be right; the sform was taken",
    ),
    "two-origins": Finding(
        "note",
        "accept",
        ("accept", "reject"),
        "names two places in the body (qform, sform); the sform was taken",
    ),
    "missing-codec": Finding(
        "serious",
        "accept",  # decoding says which package, and the codec may have been installed since
        ("accept", "reject"),
        "is packed in a way that nothing installed here can decode",
    ),
    "lossy": Finding("note", "accept", ("accept", "reject"), "was compressed with loss"),
    "burned-in": Finding(
        "serious", "reject", ("reject", "accept"), "says that it has text burned into its pixels"
    ),
}
