"""Who asks: a token, an object of kfp's, or cookies of a login in front of KFP; read again when they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

from flowyml.core.credentials import Login, Secret

__all__ = ["SignIn"]


@dataclass(slots=True)
class SignIn:
    """``credentials`` are what ``kfp.Client`` takes by that name, and count where there is no token.

    The official client takes this object for its own ``credentials``, and asks it before each call.
    """

    token: Secret = field(default_factory=lambda: Secret("token"))
    credentials: Any = field(default=None, repr=False)
    cookies: Secret = field(default_factory=lambda: Secret("cookies"))
    basic: Login = field(default_factory=Login.of, repr=False)

    def beside(self, url: str) -> Self:
        """With the user and password that stand in the URL, where nothing else gives an authorization."""
        basic = Login.in_url(url)
        return replace(self, basic=basic) if basic and not self.gives_token else self

    @property
    def gives_token(self) -> bool:
        """Whether there is a token, which is known before it is read."""
        return bool(self.token) or self.credentials is not None

    def headers(self) -> dict[str, str]:
        """What each call carries. Raises ``ConfigurationError`` where a file or a command gives nothing."""
        found = self.basic.headers()
        if token := self.token.get() or _token_of(self.credentials):
            found["Authorization"] = f"Bearer {token}"
        if cookies := self.cookies.get():
            found["Cookie"] = cookies
        return found

    def refresh_api_key_hook(self, configuration: Any) -> None:
        """Write the token into a configuration of the official client."""
        if token := self.token.get():
            configuration.api_key["authorization"] = token
        elif self.credentials is not None:
            self.credentials.refresh_api_key_hook(configuration)
        else:
            configuration.api_key.pop("authorization", None)

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Read it again after a refusal of these headers: files and commands have fresh tokens before the old ones
        expire. True when trying again makes sense."""
        if refused != self.headers():  # another thread has renewed it
            return True
        renewed = [secret.renew(secret.get() or "") for secret in (self.token, self.cookies) if secret]
        return any(renewed)


def _token_of(credentials: Any) -> str | None:
    """The token that an object of ``kfp.client`` gives, which it does by writing it into a configuration."""
    if credentials is None:
        return None
    configuration = SimpleNamespace(api_key=dict[str, str]())
    credentials.refresh_api_key_hook(configuration)
    api_key: dict[str, str] = configuration.api_key
    return api_key.get("authorization")
