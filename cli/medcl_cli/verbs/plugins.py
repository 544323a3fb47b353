"""medcl plugins."""

from __future__ import annotations

from medcl_cli import show


def plugins(json: show.Json = False) -> None:
    """List the installed modalities, and say why one cannot be used.

    Example: medcl plugins
    """
    from medcl.plugin import Plugin, discover

    rows = [
        {
            "name": name,
            "status": "ok",
            "about": found.summary,
            "encoders": sorted(found.encoders),
            "tasks": sorted(found.tasks),
        }
        if isinstance(found, Plugin)
        else {"name": name, "status": "broken", "about": found.reason, "encoders": [], "tasks": []}
        for name, found in discover().items()
    ]
    if json:
        show.as_json(rows)
        return
    columns = ("name", "status", "about", "encoders", "tasks")
    cells = [[r[c] if isinstance(r[c], str) else ", ".join(r[c]) for c in columns] for r in rows]
    show.table("Plugins", columns, cells)
