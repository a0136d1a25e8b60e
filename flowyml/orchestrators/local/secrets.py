"""Secrets of local runs, from the environment, a ``.env`` file, or the system's keyring."""

from __future__ import annotations

from pathlib import Path

from flowyml.core.errors import ConfigurationError, MissingExtraError, MissingSecretError
from flowyml.core.settings import is_of_another_user
from flowyml.plan.secrets import variable_of

__all__ = ["KEYRING_SERVICE", "LocalSecrets"]

KEYRING_SERVICE = "flowyml"


class LocalSecrets:
    """Reads secrets by name, in this order: ``FLOWYML_SECRET_…`` in the environment, in ``dotenv``, the keyring."""

    def __init__(self, dotenv: Path | None = None) -> None:
        self._dotenv = dotenv

    def __call__(self, reference: str) -> str:
        """Return the value. Raises ``MissingSecretError``, and ``ConfigurationError`` for an unusable file."""
        from flowyml.runtime.secrets import from_environment

        try:
            return from_environment(reference)
        except MissingSecretError:
            if value := self._in_file().get(variable_of(reference)) or _in_keyring(reference):
                return value
        file = f" in the environment or in {self._dotenv}" if self._dotenv else " in the environment"
        raise MissingSecretError(
            f"Secret {reference!r} is missing: set {variable_of(reference)}{file}, or with flowyml[secrets] installed "
            f"run `keyring set {KEYRING_SERVICE} {reference}`."
        )

    def _in_file(self) -> dict[str, str | None]:
        if self._dotenv is None:
            return {}
        if not self._dotenv.is_file():
            raise ConfigurationError(f"dotenv={str(self._dotenv)!r} does not exist. Create the file, or drop dotenv.")
        if is_of_another_user(self._dotenv):
            raise ConfigurationError(f"dotenv={str(self._dotenv)!r} belongs to another user.")
        try:
            from dotenv import dotenv_values
        except ImportError as error:
            raise MissingExtraError("dotenv= needs python-dotenv: pip install 'flowyml[secrets]'.") from error
        try:
            return dotenv_values(self._dotenv, interpolate=False)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"dotenv={str(self._dotenv)!r} cannot be read: {error}.") from error


def _in_keyring(reference: str) -> str | None:
    """Return a secret from the keyring; None without a keyring, as on most servers."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, reference)
    except keyring.errors.NoKeyringError:
        return None
    except keyring.errors.KeyringError as error:
        raise MissingSecretError(f"The keyring cannot read secret {reference!r}: {error}.") from error
