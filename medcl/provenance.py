"""The provenance of a result: versions and commit, for its record."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from medcl import version
from medcl.plugin import GROUP

PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


def versions(plugin: str) -> dict[str, str]:
    """Versions of Python, medcl, its main dependencies and the plugin's distribution."""
    packages = {
        "medcl": version.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    for entry in importlib.metadata.entry_points(group=GROUP, name=plugin):
        if entry.dist is not None:
            packages[f"plugin {plugin}"] = f"{entry.dist.name} {entry.dist.version}"
    return packages


def commit() -> str | None:
    """The commit of the checkout of this code; None if installed from a wheel."""
    git = ["git", "-C", str(Path(version.__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]  # not another project's checkout
    describe = [*git, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        for command in (tracked, describe):
            result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
