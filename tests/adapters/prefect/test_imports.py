"""What importing the adapter costs: neither Prefect nor an HTTP library."""

from __future__ import annotations

import subprocess
import sys

_HEAVY = "[name for name in ('prefect', 'httpx', 'pydantic', 'fsspec', 'croniter') if name in sys.modules]"
_USED = "import flowyml_prefect.capabilities; flowyml_prefect.PrefectOrchestrator('http://127.0.0.1:1')"


def test_importing_it_loads_no_engine() -> None:
    code = f"import sys; {_USED}; print({_HEAVY})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
