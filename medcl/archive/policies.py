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
        about: its description, as the end of "This series …".
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
