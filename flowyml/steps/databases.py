"""SQL statements, with SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowyml import step
from flowyml.steps.needed import needed

__all__ = ["sql"]


@step
def sql(
    statements: str | list[str], url: str, parameters: dict[str, Any] | None = None, password: str = ""
) -> list[dict[str, Any]]:
    """Run statements in one transaction, and return the rows of the last one, each a dict by column.

    ``url`` is SQLAlchemy's, such as ``postgresql+psycopg://ada@db.internal/sales``. Its password is a secret:
    ``sql.options(secrets={"password": "warehouse/password"})``, or the whole ``url`` is one. ``parameters`` fill names
    like ``:day`` in the statements; never put a value into the text of one. If a statement fails, the transaction is
    rolled back and SQLAlchemy's error is raised. Needs the package ``sqlalchemy`` and the driver that the URL names.
    """
    sqlalchemy = needed("sqlalchemy", "sqlalchemy", "sql")
    address = sqlalchemy.make_url(url)
    if password:
        address = address.set(password=password)
    try:
        engine = sqlalchemy.create_engine(address, hide_parameters=True)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise ImportError(
            f"sql needs the driver of {address.drivername!r} where it runs, which is not installed there: {error}"
        ) from error
    listed: Sequence[str] = [statements] if isinstance(statements, str) else statements
    rows: list[dict[str, Any]] = []
    try:
        with engine.begin() as connection:
            for statement in listed:
                bound = sqlalchemy.text(statement)
                names = bound.compile().params
                wanted = {name: value for name, value in (parameters or {}).items() if name in names}
                result = connection.execute(bound, wanted)
                rows = [dict(row) for row in result.mappings()] if result.returns_rows else []
                count = len(rows) if result.returns_rows else max(result.rowcount, 0)
                print(f"{count} row{'s' * (count != 1)}{'' if result.returns_rows else ' changed'}")
    finally:
        engine.dispose()
    return rows
