"""Execute one submitted run, in a process that outlives its caller. Started by file name, with the caller's Python."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    if find_spec("flowyml") is None:
        sys.path.append(str(Path(__file__).resolve().parents[3]))
    from flowyml.orchestrators.background import take_secrets
    from flowyml.orchestrators.local.detached import main
    from flowyml.orchestrators.local.orchestrator import LocalOrchestrator

    take_secrets()
    folder = Path(sys.argv.pop())  # it is not for the user's modules, which may parse arguments of their own
    sys.exit(main(folder, LocalOrchestrator))
