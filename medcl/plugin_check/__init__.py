"""``medcl plugins check``: tests of a plugin's contract on a few items of its sample."""

from medcl.plugin_check.check import check
from medcl.plugin_check.finding import Checked, Finding

__all__ = ["Checked", "Finding", "check"]
