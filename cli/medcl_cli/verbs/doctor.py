"""medcl doctor."""

from __future__ import annotations

from dataclasses import asdict

import typer

from medcl_cli import show


def doctor(json: show.Json = False) -> None:
    """Print versions, devices and backends, with advice for those that do not work.

    Exit code 1 if something that medcl needs is broken. Example: medcl doctor
    """
    from medcl.doctor import examine

    checks = examine()
    if json:
        show.as_json([asdict(check) for check in checks])
    else:
        rows = [(c.name, c.status, c.detail, c.advice) for c in checks]
        show.table("medcl doctor", ("what", "status", "found", "what to do"), rows)
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(1)
