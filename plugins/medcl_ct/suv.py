"""From activity concentrations to standardised uptake values by body weight (SUVbw), g/ml.

As QIBA's vendor-neutral pseudo-code (FDG-PET/CT Profile) has it: the injected dose is decayed to
the time to which the images are decay-corrected, and the patient's weight divided by it.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Any

from medcl_ct.quiet import quiet
from medcl_ct.tags import Opener

TAGS = (
    *("Units", "SUVType", "DecayCorrection", "PatientWeight", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"),
    "RadiopharmaceuticalInformationSequence",
)
_DAY = timedelta(days=1)
_LONGEST = 7.0  # days between injection and scan


def of(open_file: Opener) -> float | None:
    """The `factor` of a file; None where its header cannot be read either."""
    import pydicom

    try:
        with open_file() as handle, quiet():
            return factor(
                pydicom.dcmread(
                    handle, stop_before_pixels=True, force=True, specific_tags=list(TAGS)
                )
            )
    except Exception:  # what pydicom raises for a damaged sequence
        return None


def factor(dataset: Any) -> float | None:
    """By what the rescaled values of a PET image are multiplied to be SUVbw; None if unknown.

    Args:
        dataset: a pydicom dataset with `TAGS`.
    """
    try:
        units = str(dataset.get("Units", "")).upper()
        if units == "GML":
            return 1.0 if str(dataset.get("SUVType") or "BW").upper() == "BW" else None
        return _from_activity(dataset) if units == "BQML" else None
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return None


def _from_activity(dataset: Any) -> float | None:
    given = dataset.get("RadiopharmaceuticalInformationSequence")
    if not given or len(given) != 1:
        return None
    dose = float(given[0].get("RadionuclideTotalDose") or 0)  # Bq
    weight = float(dataset.get("PatientWeight") or 0)  # kg
    if not (0.5 <= weight <= 500 and dose > 1e4 and math.isfinite(dose)):
        return None  # a dose in MBq by mistake is below
    corrected = str(dataset.get("DecayCorrection", "")).upper()
    if corrected == "ADMIN":
        return 1000.0 * weight / dose
    half = float(given[0].get("RadionuclideHalfLife") or 0)  # s
    elapsed = _elapsed(dataset, given[0]) if corrected == "START" else None
    if elapsed is None or not half > 0:
        return None
    return 1000.0 * weight / (dose * 2.0 ** (-elapsed / half))


def _elapsed(dataset: Any, given: Any) -> float | None:
    """Seconds from the injection to the start of the scan."""
    series = _when(dataset.get("SeriesDate"), dataset.get("SeriesTime"))
    acquired = _when(dataset.get("AcquisitionDate"), dataset.get("AcquisitionTime"))
    if series is None or (acquired is not None and series > acquired):
        return None  # the series' time is that of a later reconstruction
    whole = re.fullmatch(
        r"(\d{8})(\d{6}(?:\.\d+)?).*", str(given.get("RadiopharmaceuticalStartDateTime") or "")
    )
    if whole:
        start = _when(whole[1], whole[2])
    else:
        start = _when(dataset.get("SeriesDate"), given.get("RadiopharmaceuticalStartTime"))
        if start is not None and start > series:
            start -= _DAY  # before midnight
    if start is None or not timedelta(0) <= series - start <= _LONGEST * _DAY:
        return None
    return (series - start).total_seconds()


def _when(date: Any, time: Any) -> datetime | None:
    match = re.fullmatch(r"(\d{2})(\d{2})(\d{2})(?:\.(\d{1,6}))?", str(time or "").strip())
    if not date or match is None:
        return None
    day = datetime.strptime(str(date).strip(), "%Y%m%d")
    hour, minute, second = (int(part) for part in match.groups()[:3])
    fraction = int((match[4] or "0").ljust(6, "0"))
    return day + timedelta(hours=hour, minutes=minute, seconds=second, microseconds=fraction)
