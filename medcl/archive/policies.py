"""Findings: problems of an item that can be lived with, and what is done about each.

The index names them; when the item is prepared a policy decides, which recipes set by name:
``prepare: {policy: {gantry-tilt: reject}}``. A plugin that has findings lists them as a mapping of
name → `Finding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from medcl.errors import MedclError, UsageError
from medcl.registry import did_you_mean

Policy = Literal["reject", "resample", "split", "accept"]
Severity = Literal["serious", "note"]


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        severity: "serious" if what is prepared would be wrong were nothing done about it.
        default: the policy where a recipe names none.
        allowed: the policies that make sense for it.
        about: what it is, as the end of "This series …".
        remedy: what to do where it is rejected; "" for the setting that accepts it.
    """

    severity: Severity
    default: Policy
    allowed: tuple[Policy, ...]
    about: str
    remedy: str = ""


def policies(given: Mapping[str, Policy], findings: Mapping[str, Finding]) -> dict[str, Policy]:
    """The policy for every finding, from a recipe's section and the defaults.

    Raises:
        UsageError: for an unknown finding, or a policy that it does not allow.
    """
    for name, policy in given.items():
        if name not in findings:
            raise UsageError(f"Unknown key 'prepare.policy.{name}'. {did_you_mean(name, findings)}")
        if policy not in findings[name].allowed:
            allowed = ", ".join(findings[name].allowed)
            raise UsageError(f"'prepare.policy.{name}' = {policy!r}: it can be {allowed}.")
    return {name: given.get(name, finding.default) for name, finding in findings.items()}


def refuse(
    found: Iterable[str], policy: Mapping[str, Policy], findings: Mapping[str, Finding], what: str
) -> None:
    """Stop at the first finding whose policy is to reject.

    Args:
        found: findings of an item.
        policy: from `policies`.
        findings: the plugin's.
        what: an item's name in words: "series".

    Raises:
        MedclError: that names the finding, and what to do.
    """
    for name in found:
        if policy.get(name) != "reject":
            continue
        remedy = findings[name].remedy
        if not remedy:
            other = next(p for p in findings[name].allowed if p != "reject")
            remedy = f"Use it nevertheless: prepare.policy.{name}={other}"
        raise MedclError(f"{name}: this {what} {findings[name].about}. {remedy}")
