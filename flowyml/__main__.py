"""``python -m flowyml`` is the command ``flowyml``."""

from __future__ import annotations

import sys

from flowyml.cli import main

if __name__ == "__main__":
    sys.exit(main())
