"""Credentials belong to one address: decide which of a target's credentials go to the called URL.

A target combines up to four tables: its own and its engine's, each in the environment and in a file. The credentials of
a table with a URL go only to that URL. Those of a table without one go to the target's URL, with one exception: a file
does not decide where the environment's credentials for a whole engine go.

A file of settings may be in a cloned folder. So the commands and the files of credentials that it names, and whom TLS
is to trust, are only used where the user has allowed its folder: else a mere list of runs could run code, or send a
file or a certificate of the user's to a server that the folder names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowyml.core.credentials import AUTH_OPTIONS
from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import is_trusted, without_consent
from flowyml.core.urls import redact_url, same_address
from flowyml.orchestrators.target import PREFIX, Target

__all__ = ["CREDENTIALS", "refused_sources", "with_own_credentials", "without_credentials_of"]

CREDENTIALS = frozenset({*AUTH_OPTIONS, "client_cert", "api_key", "credentials"})
"""The options of targets that are credentials; the last two may be those of other adapters."""

Tables = Mapping[str, Mapping[str, Any]]
_DOES = {
    **{option: "run a command" for option in CREDENTIALS if option.endswith("_command")},
    **{option: "read a file" for option in CREDENTIALS if option.endswith("_file")},
    "verify": "trust other servers",
    "ca_file": "trust other authorities",
    "client_cert": "present a certificate",
}
"""The options that count only where the user has allowed the folder, and what each would do."""


def with_own_credentials(target: Target, environment: Tables, in_file: Tables) -> Target:
    """Return the target without credentials that belong to an address other than its ``url``."""
    url = target.options.get("url")
    if url is None:
        return target
    own = [environment.get(target.name, {}), in_file.get(target.name, {})]
    engine = [environment.get(target.engine, {}), in_file.get(target.engine, {})]
    tables = own if target.engine == target.name else own + engine
    by_file = next((number % 2 == 1 for number, table in enumerate(tables) if "url" in table), False)
    withheld: dict[str, str] = {}
    for key in CREDENTIALS & target.options.keys():
        table = next((table for table in tables if key in table), {})
        if "url" in table:
            elsewhere = "" if _is_same(url, table["url"]) else f"belongs to {redact_url(str(table['url']))}"
        else:
            is_for_all = by_file and table is environment.get(target.engine)  # also of a target named like it
            elsewhere = "is set in the environment for this engine, but the URL is set in a file" if is_for_all else ""
        if elsewhere:
            withheld[key] = f"{target.origins[key]}: {key} {elsewhere}"
    return _without(target, withheld, str(url))


def refused_sources(target: Target, file: Path) -> dict[str, str]:
    """Return the options of the target that untrusted settings may not give, each with advice."""
    if is_trusted(file):
        return {}
    refused = {}
    for key in _DOES.keys() & target.options.keys():
        if not target.origins[key].startswith(PREFIX):
            variable = f"{PREFIX}{target.name.replace('-', '_').upper()}__{key.upper()}"
            what = f"{target.origins[key]}: {key}"
            refused[key] = f"{without_consent(file, what, _DOES[key])} Or set {variable}."
    return refused


def without_credentials_of(target: Target, url: object) -> Target:
    """Return the target for another URL, without its credentials."""
    own = target.options.get("url")
    if own is None or url is None or _is_same(url, own):
        return target
    belongs = {key: f"{target.origins[key]}: {key} belongs to {redact_url(str(own))}" for key in target.options}
    return _without(target, {key: why for key, why in belongs.items() if key in CREDENTIALS}, str(url))


def _without(target: Target, withheld: Mapping[str, str], url: str) -> Target:
    if not withheld:
        return target
    options = {key: value for key, value in target.options.items() if key not in withheld}
    note = (
        f"Credentials were not sent: {'; '.join(sorted(withheld.values()))}. "
        f"Put those of {redact_url(url)} beside that URL, in the same table or as further variables."
    )
    return replace(target, options=options, withheld=note)


def _is_same(one: object, other: object) -> bool:
    try:
        return same_address(str(one), str(other))
    except ConfigurationError:  # which is raised when it is used
        return one == other
