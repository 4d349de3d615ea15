"""What goes into the ``Authorization`` header: Basic credentials, or Bearer tokens, as the registry asks.

Challenges are those of RFC 9110, section 11.6.1; tokens those of the distribution project's token specification
(https://distribution.github.io/distribution/spec/auth/token/), which registries share, with OAuth2 for identity tokens.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
import requests

from torchstrata import decoding
from torchstrata.errors import RegistryAuthError, RegistryError
from torchstrata.registry.credentials import Credentials
from torchstrata.registry.reference import is_loopback
from torchstrata.text import printable

PARAMETER: Final = r'([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'
CHALLENGE: Final = re.compile(rf"\b(basic|bearer)\b((?:[\s,]+{PARAMETER})*)", re.IGNORECASE)

HEADER: Final = 8192
"""Characters of a challenge that are looked at; more than all that servers send."""

LIFETIME: Final = 60
"""Seconds that a token lives whose server does not say."""

LONGEST: Final = 86400
"""Seconds that a token is used at most, whatever its server says."""

USED: Final = 0.8
"""Share of a token's life after which another is asked for, since clocks and networks differ."""

Scopes = frozenset[str]
"""Such as ``repository:team/pytorch-cuda:pull,push``."""

Fetch = Callable[..., requests.Response]
"""Sends a request without authorization of its own: ``(method, url, **options)``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """What a registry asks for."""

    scheme: Literal["basic", "bearer"]
    parameters: Mapping[str, str]


def challenge(header: str) -> Challenge | None:
    """Return what a ``WWW-Authenticate`` header asks for; Bearer where there is a choice, ``None`` if it is neither."""
    challenges: dict[str, Challenge] = {}
    for match in CHALLENGE.finditer(header[:HEADER]):
        scheme: Literal["basic", "bearer"] = "bearer" if match[1].lower() == "bearer" else "basic"
        parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in re.findall(PARAMETER, match[2], re.IGNORECASE)}
        challenges[scheme] = Challenge(scheme=scheme, parameters=parameters)
    return challenges.get("bearer") or challenges.get("basic")


Secret = Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=65536)]
"""A token, which becomes part of a header of HTTP."""


class _TokenAnswer(msgspec.Struct, frozen=True):
    """What a token server answers (section "Token Response Fields")."""

    token: Secret | None = None
    access_token: Secret | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    until: float


class Authorizer:
    """Knows what one registry wants; safe to use from many threads.

    :param host: the registry, for messages.
    :param credentials: looked up when they are first needed.
    :param fetch: asks the token server.
    """

    def __init__(self, host: str, credentials: Callable[[], Credentials | None], fetch: Fetch) -> None:
        self._host, self._find, self._fetch = host, credentials, fetch
        self._asked: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._lock = threading.Lock()

    def header(self, scopes: Scopes) -> str | None:
        """Return what to send for ``scopes``, as far as is known by now.

        :raises RegistryAuthError: there are no credentials, or the token server does not accept them.
        """
        with self._lock:
            if self._asked is None:
                return None
            if self._asked.scheme == "basic":
                return _basic(self._credentials())
            return f"Bearer {self._token(self._asked, scopes)}"

    def learn(self, response: requests.Response, scopes: Scopes, sent: str | None) -> None:
        """Take in a 401, so that :meth:`header` has a better answer than ``sent``; the caller reports a second 401."""
        asked = challenge(response.headers.get("WWW-Authenticate", ""))
        with self._lock:
            self._asked = asked or self._asked
            token = self._tokens.get(scopes)
            if token and sent == f"Bearer {token.value}":
                del self._tokens[scopes]

    def refused(self, what: str) -> RegistryAuthError:
        """Return the error for something that stays forbidden."""
        credentials = self._find()
        who = f"{credentials.username or 'this identity'} may not" if credentials else "nobody is logged in there, and without a login one may not"
        return RegistryAuthError(f"{self._host}: {who} {what}", fix=f"docker login {self._host}, with an account that may")

    def _credentials(self) -> Credentials:
        credentials = self._find()
        if credentials is None:
            raise RegistryAuthError(f"{self._host} wants a login, and there is none", fix=f"docker login {self._host}")
        return credentials

    def _token(self, asked: Challenge, scopes: Scopes) -> str:
        token = self._tokens.get(scopes)
        if token is None or token.until < time.monotonic():
            token = self._tokens[scopes] = self._new_token(asked, scopes)
        return token.value

    def _new_token(self, asked: Challenge, scopes: Scopes) -> _Token:
        realm = asked.parameters.get("realm", "")
        try:
            url = urlsplit(realm)
        except ValueError:
            url = urlsplit("")
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.netloc)):
            raise RegistryAuthError(
                f"{self._host} sends clients to {printable(realm) or 'nowhere'} for tokens, where passwords are not safe",
                fix="let its admin give a realm with https",
            )
        response = self._ask(realm, {"service": asked.parameters.get("service", "")}, scopes)
        if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden, requests.codes.bad_request}:
            raise self.refused("get a token: the token server refuses these credentials")
        return _read(self._host, response)

    def _ask(self, realm: str, service: Mapping[str, str], scopes: Scopes) -> requests.Response:
        """Ask for a token: by OAuth2 with an identity token, else by the token specification, perhaps anonymously."""
        credentials = self._find()
        if credentials and credentials.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "torchstrata", "refresh_token": credentials.identity_token, **service}
            return self._fetch("POST", realm, data={**form, "scope": " ".join(sorted(scopes))})
        headers = {"Authorization": _basic(credentials)} if credentials else {}
        return self._fetch("GET", realm, params={**service, "scope": sorted(scopes)}, headers=headers)


def _read(host: str, response: requests.Response) -> _Token:
    """Return the token in an answer; one that has its time from the server's clock counts from now."""
    try:
        answer = decoding.decode(response.content, _TokenAnswer)
    except msgspec.DecodeError:
        answer = _TokenAnswer()
    value = answer.token or answer.access_token
    if not value:
        raise RegistryError(f"{host}: its token server answers {response.status_code} without a token", fix="ask its admin")
    lifetime = min(max(answer.expires_in or LIFETIME, 0), LONGEST)
    return _Token(value, time.monotonic() + lifetime * USED)


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(f'{credentials.username}:{credentials.password}'.encode()).decode()}"
