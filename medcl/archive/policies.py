"""Findings: acceptable problems of an item, and a policy for each.

The index lists them. Preparing applies the policy, which recipes set by name:
``prepare: {policy: {gantry-tilt: reject}}``. A plugin with findings lists them as a mapping of
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
        severity: "serious" if the prepared arrays would be wrong without a remedy.
        default: the policy unless a recipe sets one.
        allowed: the applicable policies.
        about: its description, as the end of "This series …"; ``{}`` in it is what stands behind
            the colon of a finding such as ``lacks:V6``.
        remedy: advice when it is rejected; "" for the setting that accepts it.
    """

    severity: Severity
    default: Policy
    allowed: tuple[Policy, ...]
    about: str
    remedy: str = ""


def policies(overrides: Mapping[str, Policy], findings: Mapping[str, Finding]) -> dict[str, Policy]:
    """The policy for every finding, from the defaults and the ``overrides`` of a recipe.

    Raises:
        UsageError: for an unknown finding, or a policy that it does not allow.
    """
    for name, policy in overrides.items():
        if name not in findings:
            raise UsageError(f"Unknown key 'prepare.policy.{name}'. {did_you_mean(name, findings)}")
        if policy not in findings[name].allowed:
            allowed = ", ".join(findings[name].allowed)
            raise UsageError(f"'prepare.policy.{name}' = {policy!r}: it can be {allowed}.")
    return {name: overrides.get(name, finding.default) for name, finding in findings.items()}


def described(name: str, findings: Mapping[str, Finding]) -> str:
    """A finding in words, with the remedy where it would be rejected; "" if nothing is known of it.

    Example:
        >>> lacks = {"lacks": Finding("note", "accept", ("accept",), "lacks the channel {}")}
        >>> described("lacks:PPG:*", lacks), described("lacks:*", lacks)
        ('lacks the channel PPG', 'lacks the channel of any kind')
    """
    kind, _, what = name.partition(":")
    found = findings.get(name) or findings.get(kind)
    if found is None:
        return ""
    about = found.about.replace("{}", what.removesuffix(":*").replace("*", "of any kind"))
    return f"{about}. {found.remedy}" if found.default == "reject" and found.remedy else about


def refuse(
    present: Iterable[str], policy: Mapping[str, Policy], findings: Mapping[str, Finding], what: str
) -> None:
    """Stop at the first finding whose policy is to reject.

    Args:
        present: findings of an item.
        policy: from `policies`.
        findings: the plugin's.
        what: an item's name in words: "series".

    Raises:
        MedclError: names the finding and the remedy.
    """
    for name in present:
        if policy.get(name) != "reject":
            continue
        remedy = findings[name].remedy
        if not remedy:
            alternative = next(p for p in findings[name].allowed if p != "reject")
            remedy = f"Use it nevertheless: prepare.policy.{name}={alternative}"
        raise MedclError(f"{name}: this {what} {findings[name].about}. {remedy}")
