"""HTTP to one registry: authorization, redirects, and requests repeated after failures that may pass.

A registry may answer anything. So redirects are followed here, under the first request's rules: TLS, or plain HTTP to this
machine itself; credentials for the registry alone. :mod:`torchstrata.registry.http_session` bounds each single answer.

Wheels come through another HTTP library (:mod:`torchstrata.layers.wheel_fetch`): unearth, which finds them by pip's
settings, brings httpx2, and Docker's client brings requests. Pauses between tries are the same for both.
"""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from torchstrata import backoff, progress
from torchstrata.errors import AbsentError, RegistryError
from torchstrata.registry import answers, certificates, credentials
from torchstrata.registry.authorization import Authorizer, Scopes
from torchstrata.registry.http_session import READING, Body, Method, Session
from torchstrata.registry.patience import Patience
from torchstrata.registry.reference import HOST, is_loopback
from torchstrata.text import printable

HUB_ENDPOINT: Final = {"docker.io": "registry-1.docker.io"}

NOT_TLS: Final = re.compile(r"wrong.version.number|record.layer.failure|http.request", re.IGNORECASE)
"""How OpenSSL says that the other side speaks plain HTTP."""

PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

MESSAGES: Final = 3
"""Messages of a registry that one line of ours repeats."""

REMARKS: Final = 15.0
"""Seconds between two remarks of one kind about a registry: many threads may wait for it."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
HOPS: Final = 5
"""Redirects that one request follows."""


class Unanswered(RegistryError):
    """Every try of a request failed in a way that may pass.

    :param after: seconds that the server asks to wait.
    """

    def __init__(self, what: str, *, fix: str = "run it again: it goes on where it stopped", after: float = 0.0) -> None:
        super().__init__(what, fix=fix)
        self.after = after


class SilentError(Unanswered):
    """There was no answer at all to any try of a request."""


class _NotTlsError(RegistryError):
    """The other side speaks plain HTTP."""


class Transport(Session):
    """Sends requests to one registry until they are answered; its methods may be called from any thread.

    :param host: with its port.
    :param scheme: found out if ``None``: TLS, or on this machine itself plain HTTP where nothing else is spoken.
    """

    def __init__(self, host: str, *, scheme: str | None = None, patience: Patience | None = None) -> None:
        super().__init__(host, patience)
        self._scheme = scheme
        self._lock = threading.Lock()
        self._greeting: Future[str] | None = None
        self._remarked: dict[str, float] = {}
        self._authorizer = Authorizer(host, functools.cache(lambda: credentials.find(host)), self._fetch_token)

    def send(  # noqa: PLR0913  # what a request consists of
        self,
        method: Method,
        place: str,
        *,
        what: str,
        scopes: Scopes = frozenset(),
        body: Body | None = None,
        expect: Collection[int] = (200,),
        tries: int | None = None,
        limit: int = answers.DOCUMENT,
        **options: Any,
    ) -> requests.Response:
        """Send a request until it is answered, and return the answer.

        :param place: path below ``/v2/``, or the URL of a ``Location`` header.
        :param what: what is asked for, for messages, such as ``push to team/x``.
        :param expect: statuses that are answers.
        :param tries: instead of the patience's.
        :param limit: bytes of the answer's body; it is read, unless ``stream`` is among the options.
        :param options: further ones of ``requests``.
        :raises Unanswered: no try got through.
        :raises RegistryAuthError: the registry wants other credentials, or forbids it.
        :raises AbsentError: there is no such thing.
        :raises RegistryError: the registry refuses it for another reason.
        """
        url = self.resolve(place)
        ask = functools.partial(self._authorized, method, url, scopes, body, {**options, "limit": limit})
        quiet = self.patience.quiet if not callable(body) else self.patience.answer  # the bytes of a body are seen to go
        answer = self.patience.answer if method in READING else self.patience.read
        with self._awaited(what, self.patience.longest_wait(tries or self.patience.tries, answer), quiet):
            response = self._patiently(ask, what, expect, tries)
        return self._judged(response, expect, what)

    def _patiently(
        self, attempt: Callable[[], requests.Response], what: str, expect: Collection[int] = (), tries: int | None = None, patience: Patience | None = None
    ) -> requests.Response:
        """Repeat ``attempt`` until it brings an answer that will not pass by itself."""
        patience = patience or self.patience
        tries, started = tries or patience.tries, time.monotonic()
        for failures in range(1, tries + 1):
            try:
                response = attempt()
                if response.status_code not in PASSING or response.status_code in expect:
                    return response
                response.close()
                problem = self._passing(response, what)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                problem = self._broken(error, what)
            if failures < tries and not patience.is_over(started - problem.after):
                self.wait(failures, problem)
            else:
                break
        raise problem

    def _passing(self, response: requests.Response, what: str) -> Unanswered:
        after = min(backoff.retry_after(response.headers.get("Retry-After", "")), backoff.LONGEST_ORDER)
        more = {"fix": f"run it again in {after:.0f} s, as {self.host} asks"} if after else {}
        return Unanswered(f"{self.host} answers {response.status_code} to: {what}", after=after, **more)

    def _awaited(self, what: str, longest: float, quiet: float) -> contextlib.AbstractContextManager[None]:
        """Say what the block waits for, and for how long, where that takes longer than ``quiet`` seconds."""
        line = f"waiting for {self.host}, {longest:.0f} s at most: {what}"
        return progress.overdue(line, quiet, functools.partial(self._remark, "waiting"))

    def _remark(self, kind: str, line: str) -> None:
        """Say something about the registry, unless something of that kind was said a moment ago."""
        now = time.monotonic()
        if now - self._remarked.get(kind, -REMARKS) >= REMARKS:
            self._remarked[kind] = now
            progress.aside(line)

    def wait(self, failures: int, problem: Unanswered) -> None:
        """Wait until the next try.

        :raises CancelledError: the transport was cancelled meanwhile.
        """
        pause = self.patience.pause(failures, problem.after)
        if pause > self.patience.quiet:
            self._remark("trying again", f"{problem.what}; trying again in {pause:.0f} s")
        if self.cancelled.wait(pause):
            raise CancelledError from problem

    def resolve(self, place: str, base: str | None = None) -> str:
        """Return the URL of a path below ``/v2/``, or of a ``Location``, absolute or not, in an answer from ``base``.

        :raises RegistryError: it is no URL, or leads to plain HTTP elsewhere, or from another machine to this one.
        """
        try:
            url = urljoin(base or f"{self.base()}/v2/", place)
            parts = urlsplit(url)
        except ValueError:
            raise self._astray(place) from None
        self._check(parts.scheme, parts.netloc)
        return url

    def base(self) -> str:
        """Return scheme and host of the registry; the first call finds the scheme out (section "Determining Support").

        Threads that come meanwhile wait for its answer, whatever that is: else each would wait for a silent registry anew.

        :raises RegistryError: there is no registry, or plain HTTP was asked for elsewhere than on this machine.
        """
        with self._lock:
            is_first, greeting = self._greeting is None, self._greeting or Future[str]()
            self._greeting = greeting
        if is_first:
            try:
                greeting.set_result(self._hello())
            except BaseException as error:  # noqa: BLE001  # raised below, here and in the other threads
                with self._lock:
                    self._greeting = None  # who comes later asks again
                greeting.set_exception(error)
        return greeting.result()

    def _hello(self) -> str:
        endpoint = HUB_ENDPOINT.get(self.host, self.host)
        if self._scheme:
            self._check(self._scheme, endpoint)
        if not self._scheme and is_loopback(endpoint):
            with contextlib.suppress(_NotTlsError):
                return self._greet(f"https://{endpoint}")
            return self._greet(f"http://{endpoint}")
        return self._greet(f"{self._scheme or 'https'}://{endpoint}")

    def _greet(self, base: str) -> str:
        patience, what = self.patience.of_greeting, "GET /v2/"
        with self._awaited(what, patience.longest_wait(patience.tries, patience.answer), patience.quiet):
            answer = self._patiently(lambda: self._request("GET", f"{base}/v2/", patience=patience), what, patience=patience)
        if answer.status_code == requests.codes.unauthorized:
            self._authorizer.learn(answer, frozenset(), None)
        elif answer.status_code != requests.codes.ok:
            raise RegistryError(f"{self.host} is no registry: it answers {answer.status_code} to GET /v2/", fix="check the name and the port")
        return base

    def _check(self, scheme: str, host: str) -> None:
        """Refuse to speak to a host.

        :raises RegistryError: it is none, or not to be spoken to in that way.
        """
        if scheme not in {"https", "http"} or not HOST.fullmatch(host):
            raise self._astray(f"{scheme}://{host}")
        if scheme != "https" and not is_loopback(host):
            raise RegistryError(
                f"{host} would be spoken to without TLS, so that anybody on the way could read passwords and change images",
                fix="give it a certificate (that of a private CA goes to /etc/docker/certs.d/HOST/ca.crt); plain HTTP is for this machine itself only",
            )
        if is_loopback(host) and not is_loopback(self.host):
            raise RegistryError(f"{self.host} leads to {host}, which is this machine itself, where it has no business", fix="ask its admin")

    def _astray(self, place: str) -> RegistryError:
        return RegistryError(f"{self.host} leads to {printable(place)!r}, which is no address of a registry", fix="ask its admin")

    def _is_own(self, url: str) -> bool:
        """Return whether a URL is the registry's own, so that credentials may go there."""
        return _origin(self.base()) == _origin(url)

    def _authorized(self, method: str, url: str, scopes: Scopes, body: Body | None, options: Mapping[str, Any]) -> requests.Response:
        """Send a request with the authorization that is known, and again with a better one if the registry asks."""
        if not self._is_own(url):
            return self._request(method, url, body, **options)  # storage elsewhere: the URL is the right to use it
        response = None
        for _ in range(2):
            header = self._authorizer.header(scopes)
            headers = {**options.get("headers", {}), **({"Authorization": header} if header else {})}
            response = self._request(method, url, body, **{**options, "headers": headers})
            if response.status_code != requests.codes.unauthorized or not self._is_own(response.url):
                break  # what another host wants to know is not the registry's question
            response.close()
            self._authorizer.learn(response, scopes, header)
        assert response is not None
        return response

    def _request(self, method: str, url: str, body: Body | None = None, **options: Any) -> requests.Response:
        """Send a request and follow its redirects, of which none gets to see what only the first host may.

        :raises RegistryError: one leads where none may, or they do not end.
        """
        for _ in range(HOPS + 1):
            response = self.once(method, url, body, **options)
            place = response.headers.get("Location", "")
            if response.status_code not in REDIRECTS or not place:
                return response
            response.close()
            before, url = url, self.resolve(place, url)
            if _origin(url) != _origin(before):
                if method not in READING:
                    raise RegistryError(f"{self.host} redirects {method} to {url}, which would get what is for {self.host}", fix="ask its admin")
                options["headers"] = {name: value for name, value in options.get("headers", {}).items() if name != "Authorization"}
            options.pop("params", None)  # the location has them
        raise RegistryError(f"{self.host} redirects again and again, at last to {url}", fix="ask its admin")

    def _fetch_token(self, method: str, url: str, **options: Any) -> requests.Response:
        """Ask the token server, with the same patience.

        :raises RegistryError: its URL is none, or leads where passwords are not safe.
        """
        self.resolve(url, url)
        return self._patiently(lambda: self._request(method, url, **options), "get a token")

    def _judged(self, response: requests.Response, expect: Collection[int], what: str) -> requests.Response:
        """Return an answer that was expected; say in words what another one means."""
        if response.status_code in expect:
            return response
        messages = "; ".join(answers.messages(response)[:MESSAGES])
        if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
            raise self._authorizer.refused(what + (f" ({messages})" if messages else ""))
        why = messages or f"status {response.status_code}"
        if response.status_code == requests.codes.not_found:
            raise AbsentError(f"{self.host} does not have it: {what} ({why})", fix="check the name, or push it first")
        raise RefusedError(f"{self.host} refuses: {what} ({why})", codes=frozenset(answers.codes(response)), status=response.status_code)

    def _broken(self, error: Exception, what: str) -> Unanswered:
        """Return the problem behind an exception if another try may help.

        :raises RegistryError: it cannot.
        """
        if NOT_TLS.search(str(error)):
            raise _NotTlsError(f"{self.host} does not speak TLS", fix="let it: plain HTTP is spoken on this machine itself only") from error
        cause = next((reason for reason in answers.causes(error) if isinstance(reason, ssl.SSLCertVerificationError)), None)
        if cause:
            raise RegistryError(
                f"{self.host} is not who it says, or its CA is not known here: {cause.verify_message}",
                fix=f"put the CA's certificate into {certificates.DIRECTORIES[0]}/{self.host}/ca.crt, or name it with REQUESTS_CA_BUNDLE",
            ) from error
        if isinstance(error, requests.RequestException) and not isinstance(error, requests.ConnectionError | requests.Timeout):
            # of the request itself, whose headers the words of the exception may repeat
            raise RegistryError(f"{self.host} cannot be asked to {what}: {type(error).__name__}", fix="check the name of the registry") from None
        return SilentError(f"{self.host} does not answer to: {what} ({answers.words(error)})", fix="check name, port, network and proxy, then run it again")


class RefusedError(RegistryError):
    """A registry refused a request for good.

    :param codes: the codes of its error, such as ``DIGEST_INVALID`` (section "Error Codes").
    :param status: of HTTP.
    """

    def __init__(self, what: str, *, codes: frozenset[str], status: int) -> None:
        super().__init__(what, fix="see the registry's log for more, or ask its admin")
        self.codes = codes
        self.status = status


def _origin(url: str) -> tuple[str, str]:
    """Return scheme and host of a URL, in the one form that they have (RFC 6454, section 4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")
