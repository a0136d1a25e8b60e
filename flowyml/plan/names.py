"""Convert users' names to names that files, URLs and engines accept."""

from __future__ import annotations

import keyword
import re
import unicodedata

from flowyml.core.errors import DefinitionError

__all__ = ["MAX_NAME_LENGTH", "check_name", "identifier", "slug"]

MAX_NAME_LENGTH = 200

_ENDS_IN_DIGEST = r"(^|[-_])[0-9a-f]{8}$"


def check_name(name: object, what: str) -> str:
    """Return the name if it is 1 to 200 printable characters, else raise ``DefinitionError``.

    Quotes, slashes and any script are fine; control characters, line breaks and lone surrogates are not.

    >>> check_name("Überprüfung '1'", "step")
    "Überprüfung '1'"
    """
    if not isinstance(name, str):
        raise DefinitionError(f"The name of a {what} must be a string, not {name!r}.")
    if not name or name != name.strip():
        raise DefinitionError(
            f"{what} name {name!r}: it is empty, or begins or ends with white space. Choose another name."
        )
    if len(name) > MAX_NAME_LENGTH:
        raise DefinitionError(f"{what} name {name[:30]!r}… has {len(name)} characters. Use {MAX_NAME_LENGTH} at most.")
    if not name.isprintable():
        raise DefinitionError(f"{what} name {name!r} has control characters or line breaks. Choose another name.")
    return name


def slug(name: str, *, max_length: int = 60, separator: str = "-") -> str:
    """Return lower-case ASCII letters, digits and separators; stable.

    Two names have the same slug only if 32 bits collide.

    The slug of a changed name ends in eight digits of its SHA-256, so that slugs differ.

    >>> slug("training")
    'training'
    >>> slug("Train/Model ü")
    'train-model-u-b0ce1989'
    """
    plain = _plain(name, separator).lower()
    if plain == name and len(name) <= max_length and not re.search(_ENDS_IN_DIGEST, name):
        return name
    return separator.join(part for part in (plain[: max_length - 9].strip(separator), _digest(name)) if part)


def identifier(name: str) -> str:
    """Return a Python identifier for generated code; stable, and different for different names.

    >>> identifier("load"), identifier("class")
    ('load', 'class_0889113e')
    """
    usable = name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name[0].isalpha()
    if usable and not re.search(_ENDS_IN_DIGEST, name):
        return name
    safe = f"{_plain(name, '_')[:50]}_{_digest(name)}".lstrip("_")
    return safe if safe[0].isalpha() else f"s_{safe}"


def _plain(name: str, separator: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", separator, ascii_name).strip(separator)


def _digest(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
