"""What importing the adapter costs: neither Prefect nor an HTTP library."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FORBIDDEN = "[name for name in ('prefect', 'httpx', 'pydantic', 'fsspec', 'croniter') if name in sys.modules]"


@pytest.mark.parametrize(
    "statement",
    [
        "import flowyml_prefect",
        "import flowyml_prefect.capabilities",
        "from flowyml_prefect import PrefectOrchestrator; PrefectOrchestrator('http://127.0.0.1:1')",
    ],
)
def test_importing_it_loads_no_engine(statement: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print({_FORBIDDEN})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_package_says_what_it_has() -> None:
    import flowyml_prefect

    assert flowyml_prefect.__all__ == ["PrefectOrchestrator"]
    with pytest.raises(AttributeError, match="no attribute 'Prefect'"):
        _ = flowyml_prefect.Prefect  # type: ignore[attr-defined]  # that is the test
