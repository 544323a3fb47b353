"""Numbers of anatomical structures: those of TotalSegmentator, which one map of labels can hold.

Wasserthal 2023, doi 10.1148/ryai.230024; the classes of its task "total", version 2, in its order.
"""

from __future__ import annotations

import re

_BEFORE = """
    spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right
    adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right
    lung_middle_lobe_right lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel
    duodenum colon urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1
"""
_AFTER = """
    heart aorta pulmonary_vein brachiocephalic_trunk subclavian_artery_right subclavian_artery_left
    common_carotid_artery_right common_carotid_artery_left brachiocephalic_vein_left
    brachiocephalic_vein_right atrial_appendage_left superior_vena_cava inferior_vena_cava
    portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left
    iliac_vena_right humerus_left humerus_right scapula_left scapula_right clavicula_left
    clavicula_right femur_left femur_right hip_left hip_right spinal_cord gluteus_maximus_left
    gluteus_maximus_right gluteus_medius_left gluteus_medius_right gluteus_minimus_left
    gluteus_minimus_right autochthon_left autochthon_right iliopsoas_left iliopsoas_right brain
    skull
"""
_SPINE = [("L", 5), ("T", 12), ("C", 7)]

STRUCTURES: tuple[str, ...] = (
    *_BEFORE.split(),
    *(f"vertebrae_{part}{n}" for part, count in _SPINE for n in range(count, 0, -1)),
    *_AFTER.split(),
    *(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)),
    "sternum",
    "costal_cartilages",
)
"""By number, from 1."""

LAST = len(STRUCTURES)
_CODES = {name.lower(): number for number, name in enumerate(STRUCTURES, start=1)}


def code(name: str) -> int | None:
    """The number of a structure; None for a name that is not known.

    Written in any case, with any signs between its words, and with its side before or behind:
    ``Left kidney`` is ``kidney_left``.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    orders = [words, [*words[1:], *words[:1]], [*words[:-2], *reversed(words[-2:])]]
    found = (_CODES.get("_".join(order)) for order in orders)
    return next((number for number in found if number is not None), None)
