"""Problems of a slide that can be lived with: their names, and what is done about each.

The index names them; when the slide is prepared a policy decides, which recipes set by name:
``prepare: {policy: {single-level: reject}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from medcl.errors import MedclError, UsageError
from medcl.registry import did_you_mean

Policy = Literal["reject", "accept", "resample"]

GIVE_MPP = (
    "Give it when indexing: medcl index … -s reader.mpp=0.25 (µm per pixel of the full-size image, "
    "for all slides that lack it), or -s reader.mpp_table=FILE.csv with columns key and mpp."
)


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        default: the policy where a recipe names none.
        allowed: the policies that make sense for it.
        about: what it is, as the end of "This slide …".
    """

    default: Policy
    allowed: tuple[Policy, ...]
    about: str


FINDINGS: dict[str, Finding] = {
    "missing-mpp": Finding("reject", ("reject",), "does not say how large its pixels are (mpp)"),
    "given-mpp": Finding(
        "accept", ("accept", "reject"), "did not say how large its pixels are; it was given"
    ),
    "anisotropic-mpp": Finding(
        "resample",
        ("resample", "reject", "accept"),
        "has pixels that are not square (more than 2 %)",
    ),
    "no-magnification": Finding(
        "accept", ("accept", "reject"), "does not name its objective's magnification"
    ),
    "single-level": Finding(
        "accept", ("accept", "reject"), "has one level only, so that its overview is slow to make"
    ),
    "unscaled-tile": Finding(
        "accept", ("accept", "reject"), "is a tile that does not say how large its pixels are"
    ),
    "no-patient-id": Finding(
        "accept", ("accept", "reject"), "names no patient; it was taken for one of its own"
    ),
}


def policies(given: Mapping[str, Policy]) -> dict[str, Policy]:
    """The policy for every finding, from a recipe's section and the defaults.

    Raises:
        UsageError: for an unknown finding, or a policy that it does not allow.
    """
    for name, policy in given.items():
        if name not in FINDINGS:
            raise UsageError(f"Unknown key 'prepare.policy.{name}'. {did_you_mean(name, FINDINGS)}")
        if policy not in FINDINGS[name].allowed:
            allowed = ", ".join(FINDINGS[name].allowed)
            raise UsageError(f"'prepare.policy.{name}' = {policy!r}: it can be {allowed}.")
    return {name: given.get(name, finding.default) for name, finding in FINDINGS.items()}


def refuse(found: Iterable[str], policy: Mapping[str, Policy]) -> None:
    """Stop at the first finding whose policy is to reject.

    Raises:
        MedclError: that names it, and what to do.
    """
    for name in found:
        if policy.get(name) != "reject":
            continue
        if name == "missing-mpp":
            raise MedclError(f"{name}: this slide {FINDINGS[name].about}. {GIVE_MPP}")
        other = next(p for p in FINDINGS[name].allowed if p != "reject")
        raise MedclError(
            f"{name}: this slide {FINDINGS[name].about}. "
            f"Use it nevertheless: prepare.policy.{name}={other}"
        )
