"""The medcl command line."""

from __future__ import annotations

import sys


def start() -> None:
    """`medcl_cli.main.main`; a signal while it is imported ends the process without a traceback."""
    from medcl.io import stopping

    try:
        with stopping.handled():
            from medcl_cli.main import main
    except stopping.Stopped as stop:
        sys.exit(stop.code)
    main()
