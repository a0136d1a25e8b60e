"""What holds for every test of this suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def test_no_example_fails_for_being_slow() -> None:
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check
