"""Signatures with cosign 2.5 or 3, by a key pair without any service, or keyless in GitHub Actions.

Two forms are used, those that both majors write and read. An image has a signature of the kind that admission
controllers look for, which cosign keeps under the tag ``sha256-HEX.sig``. Everything else is a sigstore bundle
(version 0.3): a file that holds the signed bytes and what is needed to verify them, so that it can be attached,
copied and verified without the registry. Bundles with attestations are made over the image's manifest, whose digest
is the subject.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import msgspec

from torchstrata import decoding, files
from torchstrata.attestations import cosign
from torchstrata.errors import SigningError, UntrustedError
from torchstrata.host import home
from torchstrata.image.compose import sha256
from torchstrata.registry.reference import Reference
from torchstrata.text import printable

BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Media and artifact type by which cosign 3, ``cosign --new-bundle-format`` and ``gh attestation`` find bundles."""

KEY: Final = "COSIGN_KEY"
PUBLIC_KEY: Final = "COSIGN_PUBLIC_KEY"
AMBIENT: Final = ("ACTIONS_ID_TOKEN_REQUEST_URL", "SIGSTORE_ID_TOKEN")
"""Variables by which a machine can prove who it is, so that no key is needed."""

ISSUER: Final = "https://token.actions.githubusercontent.com"

TRUST_FIX: Final = f"set {PUBLIC_KEY}=FILE, the .pub that inv key made; inv verify-release and inv catalogue also take --key FILE and --identity REGEX"

KEY_LIMIT: Final = 20_000
"""Bytes of a public key."""

NO_ROOT: Final = b'{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'
"""Trusted root without CAs: all that a key pair needs, and no reason for cosign to ask the internet."""


class _Envelope(msgspec.Struct, frozen=True):
    payload: bytes
    """Base64 in JSON."""


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    """A sigstore bundle, as far as it is read here; cosign reads the rest."""

    dsse_envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, rename="camel"):
    """An in-toto statement."""

    predicate_type: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]+\Z", max_length=1000)]
    subject: Annotated[tuple[_Subject, ...], msgspec.Meta(min_length=1)]
    predicate: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Whose signatures count.

    :param key: public key: a file, or a URI that cosign knows; ``None`` for keyless ones.
    :param identity: regular expression on the identity in the certificate, such as a workflow's URL.
    :param issuer: who has vouched for the identity.
    """

    key: str | None = None
    identity: str = ""
    issuer: str = ISSUER

    @classmethod
    def find(cls, key: str | None = None, identity: str | None = None, issuer: str | None = None) -> Self:
        """Return what was asked for, else ``$COSIGN_PUBLIC_KEY``, else in GitHub Actions the repository's workflows.

        :raises SigningError: there is no such public key, or it cannot be read.
        :raises UntrustedError: nothing says whose signatures count.
        """
        public_key = key or (None if identity else os.environ.get(PUBLIC_KEY))
        if public_key:
            _check_file(public_key)
            return cls(key=public_key)
        repository = os.environ.get("GITHUB_REPOSITORY")
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        wanted = identity or (f"^{re.escape(f'{server}/{repository}/')}\\.github/workflows/" if repository else "")
        if not wanted:
            raise UntrustedError("nothing says whose signatures count", fix=TRUST_FIX)
        return cls(identity=wanted, issuer=issuer or ISSUER)

    def check_image(self, image: Reference) -> None:
        """Check that an image is signed.

        :param image: by digest.
        :raises UntrustedError: it is not, or by somebody else.
        """
        with cosign.work() as work, cosign.verifying(f"the signature of {image}"):
            cosign.run("verify", *self._options(), "--new-bundle-format=false", *cosign.registry_options(image.host, work), "--output=json", str(image))

    def check_attestation(self, bundle: bytes, manifest: bytes) -> Statement:
        """Return the statement in a bundle, once it is sure who signed it, and that it is about ``manifest``.

        :raises UntrustedError: it is by somebody else, damaged, or about something else.
        """
        statement = _statement(bundle)
        with cosign.work(manifest=manifest, bundle=bundle, root=NO_ROOT) as work, cosign.verifying("an attestation"):
            options = ("--new-bundle-format", "--bundle=bundle", f"--type={statement.predicate_type}", *self._options(), *self._root())
            cosign.run("verify-blob-attestation", *options, "manifest", cwd=work)
        subjects = {f"sha256:{subject.digest.get('sha256')}" for subject in statement.subject}
        if subjects != {sha256(manifest)}:  # cosign is content with one of several
            raise UntrustedError(f"an attestation is about {printable(', '.join(sorted(subjects)))}", fix="attach what belongs to this image alone")
        return statement

    def check_blob(self, content: bytes, bundle: bytes) -> None:
        """Check that ``content`` is what a bundle signs.

        :raises UntrustedError: it is not, or somebody else has signed it.
        """
        with cosign.work(content=content, bundle=bundle, root=NO_ROOT) as work, cosign.verifying("a signature"):
            cosign.run("verify-blob", "--new-bundle-format", "--bundle=bundle", *self._options(), *self._root(), "content", cwd=work)

    def _options(self) -> tuple[str, ...]:
        if self.key:
            return (f"--key={_absolute(self.key)}", "--insecure-ignore-tlog=true")
        return (f"--certificate-identity-regexp={self.identity}", f"--certificate-oidc-issuer={self.issuer}")

    def _root(self) -> tuple[str, ...]:
        return ("--trusted-root=root",) if self.key else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """Who signs.

    :param key: private key: a file, or a URI that cosign knows, with its password in ``$COSIGN_PASSWORD``; ``None``
        to sign keyless.
    """

    key: str | None

    @classmethod
    def find(cls, key: str | None = None) -> Self:
        """Return who was asked for, else the key in ``$COSIGN_KEY``, else who GitHub Actions says that this job is.

        :raises SigningError: there is nobody.
        """
        private_key = key or os.environ.get(KEY)
        if not private_key and not any(os.environ.get(name) for name in AMBIENT):
            raise SigningError(
                "there is no key to sign with",
                fix=f"make one (inv key) and set {KEY}=FILE; inv attest also takes --key FILE; in GitHub Actions, give the job `id-token: write`",
            )
        return cls(key=private_key or None)

    @classmethod
    def present(cls) -> Self | None:
        """Return who can sign here unasked: the key in ``$COSIGN_KEY``, else GitHub Actions' job, else ``None``."""
        try:
            return cls.find()
        except SigningError:
            return None

    @contextlib.contextmanager
    def trust(self) -> Iterator[Trust]:
        """Yield the trust in what this signer signs.

        :raises SigningError: the key cannot be used.
        """
        if self.key is None:
            yield Trust.find()
            return
        with cosign.signing("the public key"):
            public = cosign.run("public-key", f"--key={self.key}")
        with cosign.work(public=public.encode()) as work:
            yield Trust(key=str(work / "public"))

    def sign_image(self, image: Reference) -> None:
        """Sign an image in its registry.

        :param image: by digest.
        :raises SigningError: the key cannot be used, or the registry refuses.
        """
        with cosign.work() as work, cosign.signing(str(image)):
            as_tag = ("--new-bundle-format=false",) if cosign.is_newer() else ()
            cosign.run("sign", *self._options(), *as_tag, *cosign.registry_options(image.host, work), str(image))

    def attest(self, name: str, manifest: bytes, predicate_type: str, predicate: bytes) -> bytes:
        """Return a bundle with a signed in-toto statement about ``manifest``.

        :param name: of the subject.
        :param predicate: as JSON.
        :raises SigningError: the key cannot be used.
        """
        file = re.sub("[^A-Za-z0-9._-]", "_", name)  # which cosign takes for the subject's name
        with cosign.work(**{file: manifest, "predicate.json": predicate}) as work, cosign.signing(f"{predicate_type} of {name}"):
            options = ("--new-bundle-format", "--bundle=bundle", "--predicate=predicate.json", f"--type={predicate_type}", *self._options())
            cosign.run("attest-blob", *options, file, cwd=work)
            return (work / "bundle").read_bytes()

    def sign_blob(self, content: bytes) -> bytes:
        """Return a bundle that signs ``content``.

        :raises SigningError: the key cannot be used.
        """
        with cosign.work(content=content) as work, cosign.signing("a file"):
            cosign.run("sign-blob", "--new-bundle-format", "--bundle=bundle", *self._options(), "content", cwd=work)
            return (work / "bundle").read_bytes()

    def _options(self) -> tuple[str, ...]:
        if self.key is None:
            return ("--yes",)
        no_services = ("--tlog-upload=false", *(("--use-signing-config=false",) if cosign.is_newer() else ()))
        return ("--yes", f"--key={_absolute(self.key)}", *no_services)


@contextlib.contextmanager
def trusted(key: str | None = None, identity: str | None = None, issuer: str | None = None) -> Iterator[Trust | None]:
    """Yield the trust that was asked for, else the one that follows from the environment; ``None`` if nothing does.

    There a public key counts first, then the one of a private key, then GitHub Actions.

    :raises SigningError: the private key cannot be used, or there is no such public key.
    """
    if os.environ.get(KEY) and not (key or identity or os.environ.get(PUBLIC_KEY)):
        with Signer.find().trust() as own:
            yield own
        return
    try:
        trust = Trust.find(key, identity, issuer)
    except UntrustedError:
        trust = None
    yield trust


def _statement(bundle: bytes) -> Statement:
    """Return the statement that a bundle holds; nobody knows yet who made it.

    :raises UntrustedError: it is no bundle with one.
    """
    try:
        return decoding.decode(decoding.decode(bundle, _Bundle).dsse_envelope.payload, Statement)
    except msgspec.DecodeError:
        raise UntrustedError("this is no bundle with an attestation", fix="attach it again with this program or with cosign") from None


def _check_file(key: str) -> None:
    """Refuse a public key that cannot be read, before a registry is asked for minutes; a URI is cosign's matter.

    :raises SigningError: it cannot.
    """
    try:
        if "://" not in key:
            files.read(home.expanded(key, SigningError), KEY_LIMIT)
    except files.UnreadableError as error:
        raise SigningError(f"no public key: {error.what}", fix=f"let {PUBLIC_KEY} or --key name the .pub of the pair that inv key made") from error


def _absolute(key: str) -> str:
    """Return a key that another directory finds too; URIs stay."""
    return key if "://" in key else str(home.expanded(key, SigningError))
