"""Units: their usual spelling, and the factors between those that can be converted."""

from __future__ import annotations

_SPELLINGS = {
    unit.lower(): unit
    for unit in (
        "nV", "uV", "µV", "μV", "mV", "V", "NU", "adu", "au", "a.u.", "nd", "%", "mmHg", "cmH2O",
        "Pa", "kPa", "mbar", "bar", "bpm", "pm", "rpm", "Hz", "g", "mg", "m/s", "m/s2", "m/s^2",
        "deg", "deg/s", "rad/s", "Ohm", "kOhm", "uS", "uA", "mA", "A", "degC", "degF", "C", "l",
        "ml", "l/s", "l/min", "ml/s", "s", "ms", "mm", "cm", "m",
    )
}  # fmt: skip
_SPELLINGS |= {
    "microvolt": "uV", "millivolt": "mV", "volt": "V", "mm[hg]": "mmHg", "μs": "uS", "µs": "uS",
    "microsiemens": "uS", "cel": "degC", "°c": "degC",
}  # fmt: skip
_SIZES = {
    "nV": ("voltage", 1e-6), "uV": ("voltage", 1e-3), "µV": ("voltage", 1e-3),
    "μV": ("voltage", 1e-3), "mV": ("voltage", 1.0), "V": ("voltage", 1e3),
    "mmHg": ("pressure", 1.0), "cmH2O": ("pressure", 0.735559), "Pa": ("pressure", 0.00750062),
    "kPa": ("pressure", 7.50062), "mbar": ("pressure", 0.750062), "bar": ("pressure", 750.062),
    "g": ("acceleration", 1.0), "mg": ("acceleration", 1e-3),
    "m/s2": ("acceleration", 1 / 9.80665), "m/s^2": ("acceleration", 1 / 9.80665),
}  # fmt: skip


def known_unit(text: str) -> str:
    """A unit in its usual spelling; "" for none; "other" for what may as well be a name."""
    text = text.strip()
    return _SPELLINGS.get(text.lower(), "other") if text else ""


def factor(unit: str, to: str | None) -> float | None:
    """What to multiply by to come from one unit to the other; None where that is not known."""
    if to is None or unit not in _SIZES or to not in _SIZES:
        return None
    (kind, size), (other, target) = _SIZES[unit], _SIZES[to]
    return size / target if kind == other else None
