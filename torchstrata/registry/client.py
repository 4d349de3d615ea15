"""Manifests, blobs and tags of one registry; :mod:`torchstrata.registry.registry` adds what refers to images.

OCI distribution specification 1.1 (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md), whose
sections the methods name. Every digest is checked, whichever way content goes. A try that failed in a way that may
pass is repeated; what the registry has is not sent again. Methods may be called from any thread.

What a registry answers is bounded in bytes, pages and seconds, and each document is read as the type that it must be
(:mod:`torchstrata.image.oci`), or ends in a :class:`torchstrata.errors.RegistryError`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Self, TypeVar

import requests

from torchstrata.errors import AbsentError, ImmutableTagError, IntegrityError, RegistryAuthError, RegistryError, TorchstrataError
from torchstrata.image import oci
from torchstrata.image.compose import MANIFEST, sha256
from torchstrata.progress import ignore
from torchstrata.registry.authorization import Scopes
from torchstrata.registry.download import Download
from torchstrata.registry.patience import Patience
from torchstrata.registry.reference import TAG
from torchstrata.registry.transport import RefusedError, Transport, Unanswered
from torchstrata.registry.upload import LENGTH, OnBytes, Sent, Source, Upload
from torchstrata.store.digest import DIGEST, checked
from torchstrata.text import printable

T = TypeVar("T")

MANIFESTS: Final = (
    MANIFEST,
    oci.INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
"""Media types that manifests are asked for in."""

SMALL: Final = 64_000_000
"""Bytes of a blob that may be read into memory at most."""

PAGES: Final = 1000
"""Pages of a list."""

LINK: Final = 8192
"""Characters of a ``Link`` header that are looked at."""

MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")

UNSEEN: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID"})
"""Codes of refusals that may pass: Docker's registry misses a blob, or half of it, while another client pushes it."""

NEXT: Final = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class Manifest(NamedTuple):
    """A manifest as it is in the registry: its bytes, media type and digest."""

    body: bytes
    media_type: str
    digest: str

    def document(self, error: type[TorchstrataError] = RegistryError) -> oci.ManifestOrIndex:
        """Return what it says.

        :param error: what to raise if it is none.
        :raises RegistryError: it is none, or has another media type than the registry says (or ``error``).
        """
        return oci.manifest(self.body, f"manifest {self.digest[:19]}", self.media_type, error)


class ManifestHead(NamedTuple):
    """What a registry says of a manifest without sending it."""

    media_type: str
    digest: str
    size: int


class Client:
    """The registry at ``host``.

    :param host: with its port, if it has one.
    :param scheme: ``https`` or, on this machine itself, ``http``; found out if ``None``.
    :param patience: how often and how long to try.
    """

    def __init__(self, host: str, *, scheme: str | None = None, patience: Patience | None = None) -> None:
        self.host = host
        self.transport = Transport(host, scheme=scheme, patience=patience)
        self.has_referrers: bool | None = None
        """Whether it has the referrers API; ``None`` if no answer has told yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cancel()
        self.transport.close()

    def cancel(self) -> None:
        """End what is under way in any thread, soon."""
        self.transport.cancel()

    # Manifests

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return the manifest that a tag or digest names (section "Pulling manifests"), verified.

        :raises AbsentError: there is none.
        :raises IntegrityError: it has another digest than ``reference``, or than the registry says, try after try.
        """
        _manifest_place(repository, reference)  # what is no reference is not asked for again and again
        return self.patiently(functools.partial(self._manifest, repository, reference))

    def image_config(self, repository: str, digest: str) -> oci.ImageConfig:
        """Return what the image that a digest names says of itself.

        :raises AbsentError: there is no such image.
        :raises RegistryError: it is none.
        """
        document = self.manifest(repository, digest).document()
        if document.config is None:
            raise RegistryError(f"{digest} in {repository} is no image", fix="name one image, not an index of several")
        return oci.read(self.content(repository, document.config.digest, limit=oci.CONFIG_LIMIT), oci.ImageConfig, f"config of {digest[:19]}")

    def find(self, repository: str, reference: str) -> ManifestHead | None:
        """Return what a tag or digest names, or ``None`` (section "Checking if content exists in the registry")."""
        what = f"look for {reference} in {repository}"
        try:
            answer = self._send("HEAD", _manifest_place(repository, reference), repository, what, headers=_accept())
        except AbsentError:
            return None
        digest, length = answer.headers.get("Docker-Content-Digest", reference), answer.headers.get("Content-Length", "")
        if not (DIGEST.fullmatch(digest) and length):  # the headers may be missing; then only the content tells
            manifest = self.manifest(repository, reference)
            return ManifestHead(manifest.media_type, manifest.digest, len(manifest.body))
        if not LENGTH.fullmatch(length):
            raise RegistryError(f"{self.host} says that {printable(reference)} has {printable(length)!r} bytes", fix="ask its admin")
        return ManifestHead(_media_type(answer), digest, int(length))

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str, *, immutable: bool = False) -> str:
        """Push a manifest unless the reference names it already; return its digest (section "Pushing Manifests").

        Registries offer no compare-and-swap: of two pushes of an immutable tag at the same moment, the last one wins.

        :param immutable: the tag never moves.
        :raises ImmutableTagError: it is immutable and names something else.
        :raises IntegrityError: the registry gives it another digest, try after try.
        :raises RefusedError: the registry refuses it; a refusal for missing blobs counts after the last try.
        """
        digest = sha256(body)
        present = self.find(repository, reference)
        if present and present.digest == digest:
            return digest
        if present and immutable and reference != digest:
            raise ImmutableTagError(
                f"{self.host}/{repository}:{reference} never moves, and points to {present.digest}, not to {digest}", fix="push under a new tag"
            )
        return self.patiently(functools.partial(self._put, repository, reference, body, media_type))

    def _put(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Send a manifest and return its digest; the registry must give it the same: bytes may change on the way."""
        what, headers = f"push {reference} to {repository}", {"Content-Type": media_type}
        answer = self._send("PUT", _manifest_place(repository, reference), repository, what, push=True, body=body, expect=(201,), headers=headers)
        if "OCI-Subject" in answer.headers:  # section "Pushing Manifests with Subject"
            self.has_referrers = True
        told = answer.headers.get("Docker-Content-Digest") or self._manifest(repository, reference).digest
        digest = sha256(body)
        if told != digest:
            raise IntegrityError(
                f"{self.host} has stored {printable(told)} as {reference} instead of {digest}", fix="push again; if it stays so, ask its admin"
            )
        return digest

    def remove(self, repository: str, digest: str) -> bool:
        """Delete a manifest alone, and return whether there was one (section "Deleting Manifests").

        :raises RegistryError: the registry does not allow it.
        """
        what = f"delete {digest} from {repository}"
        try:
            self._send("DELETE", _manifest_place(repository, digest), repository, what, push=True, delete=True, expect=(202,))
        except AbsentError:
            return False
        return True

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return all tags of a repository, none if it does not exist (section "Listing Tags").

        :raises RegistryError: the list is none, or does not end.
        """
        tags: dict[str, None] = {}
        try:
            for page in self._pages(f"{repository}/tags/list", repository, f"list the tags of {repository}", oci.TagList):
                tags |= dict.fromkeys(page.tags or ())
        except AbsentError:
            return ()
        return tuple(tags)

    # Blobs

    def has_blob(self, repository: str, digest: str) -> bool:
        """Return whether a repository has a blob (section "Checking if content exists in the registry")."""
        try:
            self._send("HEAD", f"{repository}/blobs/{checked(digest)}", repository, f"look for {digest[:19]} in {repository}")
        except AbsentError:
            return False
        return True

    def blob(self, repository: str, digest: str, limit: int, on_bytes: OnBytes = ignore) -> Download:
        """Return a blob as a stream, whose end verifies it (section "Pulling blobs"); the first read asks for it.

        :param limit: bytes that it may have: its size, where a document that is believed names that.
        """
        return Download(self.transport, repository, checked(digest), limit, _scopes(repository), on_bytes)

    def content(self, repository: str, digest: str, on_bytes: OnBytes = ignore, *, limit: int | None = None) -> bytes:
        """Return a small blob, verified; one that was damaged on the way is asked for again.

        :param limit: bytes that it may have; :data:`SMALL` if ``None``.
        :raises AbsentError: the repository does not have it.
        :raises RegistryError: it is larger.
        """
        return self.patiently(functools.partial(self._content, repository, checked(digest), SMALL if limit is None else limit, on_bytes))

    def push_blob(self, repository: str, source: Source, *, mount_from: Sequence[str] = (), on_bytes: OnBytes = ignore) -> Sent:
        """Push a blob that the repository lacks: by mount from ``mount_from`` or in chunks (section "Pushing blobs").

        :raises IntegrityError: the source, or what the registry made of it, has another digest.
        """
        if self.has_blob(repository, source.digest):
            return Sent(way="present", size=source.size)
        upload = Upload(self.transport, repository, source, _scopes(repository, push=True), on_bytes)
        session = None
        for origin in mount_from:
            if session:
                upload.cancel(session)
            try:
                session = upload.mount(origin, _scopes(repository, push=True) | _scopes(origin))
            except (AbsentError, RegistryAuthError):
                continue  # from a place that we may not read we cannot mount, but the push may be allowed
            if session is None:
                return Sent(way="mounted", size=source.size)
        upload.run(session)
        return Sent(way="sent", size=source.size)

    # Inside

    def patiently(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns; call it again after a failure that may pass, until patience ends.

        :raises IntegrityError, RefusedError: the last failure.
        """
        for failures in range(1, self.transport.patience.tries + 1):
            try:
                return ask()
            except (IntegrityError, RefusedError) as error:
                passes = isinstance(error, IntegrityError) or bool(error.codes & UNSEEN)
                if not passes or failures == self.transport.patience.tries:
                    raise
                self.transport.wait(failures, Unanswered(error.what))
        raise AssertionError

    def _pages(self, place: str, repository: str, what: str, kind: type[T], **options: Any) -> Iterator[T]:
        """Yield a list, page by page (``Link``, RFC 8288).

        :param kind: of a page.
        :raises RegistryError: a page is no such thing, or there are too many.
        """
        left, seen = oci.LIST_LIMIT, set[str]()
        while len(seen) < PAGES and place not in seen:
            seen.add(place)
            answer = self._send("GET", place, repository, what, limit=left, **options)
            left -= len(answer.content)
            yield oci.read(answer.content, kind, f"what {self.host} answers to: {what}", limit=oci.LIST_LIMIT)
            following = NEXT.search(answer.headers.get("Link", "")[:LINK])
            if following is None:
                return
            place = self.transport.resolve(following[1], answer.url)
            options.pop("params", None)  # the link has them
        raise RegistryError(f"{self.host} has more than {PAGES} pages for: {what}, or they lead back to themselves", fix="ask its admin")

    def _manifest(self, repository: str, reference: str) -> Manifest:
        what = f"pull {reference} from {repository}"
        answer = self._send("GET", _manifest_place(repository, reference), repository, what, headers=_accept(), limit=oci.MANIFEST_LIMIT)
        digest = sha256(answer.content)
        expected = reference if DIGEST.fullmatch(reference) else answer.headers.get("Docker-Content-Digest", digest)
        if digest != expected:
            raise IntegrityError(
                f"{self.host} sent a manifest with digest {digest} instead of {printable(expected)}", fix="run it again; if it stays so, ask its admin"
            )
        manifest = Manifest(answer.content, _media_type(answer), digest)
        manifest.document()  # what is none is nobody's to use
        return manifest

    def _content(self, repository: str, digest: str, limit: int, on_bytes: OnBytes) -> bytes:
        taken = bytearray()
        with self.blob(repository, digest, limit, on_bytes) as stream:
            while chunk := stream.read(1 << 20):
                taken += chunk
        return bytes(taken)

    def _send(  # noqa: PLR0913  # two of them are flags
        self, method: Any, place: str, repository: str, what: str, *, push: bool = False, delete: bool = False, **options: Any
    ) -> requests.Response:
        return self.transport.send(method, place, what=what, scopes=_scopes(repository, push=push, delete=delete), **options)


def _scopes(repository: str, *, push: bool = False, delete: bool = False) -> Scopes:
    """Return what to be allowed, as Docker asks for it."""
    actions = ["pull"] + (["push"] if push else []) + (["delete"] if delete else [])
    return frozenset({f"repository:{repository}:{','.join(actions)}"})


def _manifest_place(repository: str, reference: str) -> str:
    """Return the URL of a manifest below the registry's API.

    :raises RegistryError: ``reference`` is neither a tag nor a digest; documents of registries name others' references.
    """
    if not (TAG.fullmatch(reference) or DIGEST.fullmatch(reference)):
        raise RegistryError(f"{reference[:80]!a} is neither a tag nor a digest", fix="remove what names it: its author is mistaken, or means harm")
    return f"{repository}/manifests/{reference}"


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(MANIFESTS)}


def _media_type(answer: requests.Response) -> str:
    """Return the media type that an answer has, nothing if it is none (RFC 6838, section 4.2)."""
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return media_type if MEDIA_TYPE.fullmatch(media_type) else ""
