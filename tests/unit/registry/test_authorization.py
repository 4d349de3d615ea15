"""Challenges, and the credentials that Docker has kept."""

from __future__ import annotations

import base64
import json

import pytest
import requests

from torchstrata.errors import RegistryAuthError, RegistryError
from torchstrata.registry import credentials
from torchstrata.registry.authorization import Authorizer, challenge
from torchstrata.registry.credentials import Credentials

BEARER = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'
SCOPES = frozenset({"repository:team/x:pull"})


def answer(status=200, body=None, **headers):
    """Return an answer of a server."""
    made = requests.Response()
    made.status_code = status
    made._content = json.dumps(body or {}).encode()
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


class Server:
    """A token server that keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, method, url, **options):
        """Answer."""
        self.asked.append((method, url, options))
        return self.answers.pop(0)


def authorizer(server, who=None, asked=BEARER):
    """Return one that a registry has already challenged."""
    made = Authorizer("registry.example", lambda: who, server)
    made.learn(answer(401, WWW_Authenticate=asked), SCOPES, None)
    return made


def test_a_challenge_has_parameters():
    """Commas in quotes belong to the value."""
    parsed = challenge(BEARER)
    assert parsed.scheme == "bearer"
    assert parsed.parameters == {"realm": "https://auth.example/token", "service": "registry.example", "scope": "repository:a/b:pull,push"}


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        (f'Basic realm="x", {BEARER}', "bearer"),
        (f'{BEARER}, basic Realm="x"', "bearer"),
        ('Negotiate, Digest realm="x"', None),
        ("", None),
    ],
)
def test_of_several_challenges_bearer_is_taken(header, scheme):
    """In whichever order they come; schemes that we do not speak, and nothing at all, are none."""
    found = challenge(header)
    assert (found and found.scheme) == scheme
    assert not found or found.parameters["service"] == "registry.example"


def test_nothing_is_sent_before_it_is_asked_for():
    """A registry that wants nothing gets no password."""
    assert Authorizer("registry.example", lambda: Credentials(username="u", password="p"), Server()).header(SCOPES) is None


def test_basic_credentials():
    """Name and password as UTF-8."""
    made = authorizer(Server(), Credentials(username="u", password="pä"), 'Basic realm="x"')
    assert made.header(SCOPES) == f"Basic {base64.b64encode('u:pä'.encode()).decode()}"


def test_a_token_without_a_login_is_anonymous():
    """Public registries give one that may read."""
    server = Server(answer(body={"token": "t"}))
    assert authorizer(server).header(SCOPES) == "Bearer t"
    assert server.asked == [("GET", "https://auth.example/token", {"params": {"service": "registry.example", "scope": sorted(SCOPES)}, "headers": {}})]


def test_an_identity_token_is_exchanged():
    """By OAuth2, as ``docker login`` with single sign-on leaves it."""
    server = Server(answer(body={"access_token": "t"}))
    assert authorizer(server, Credentials(identity_token="long")).header(SCOPES) == "Bearer t"
    method, _, options = server.asked[0]
    assert method == "POST"
    assert options["data"]["grant_type"] == "refresh_token"
    assert options["data"]["refresh_token"] == "long"


def test_a_token_that_was_refused_is_not_used_again():
    """After a 401 for it another one is asked for; scopes have tokens of their own."""
    server = Server(*(answer(body={"token": name, "expires_in": 300}) for name in "abc"))
    made = authorizer(server)
    first = made.header(SCOPES)
    assert made.header(SCOPES) == first
    assert made.header(frozenset()) == "Bearer b"
    made.learn(answer(401, WWW_Authenticate=BEARER), SCOPES, first)
    assert made.header(SCOPES) == "Bearer c"


@pytest.mark.parametrize("realm", ["http://auth.example/token", "", "file:///etc/passwd"])
def test_passwords_go_to_no_place_without_tls(realm):
    """Whatever a registry says."""
    with pytest.raises(RegistryAuthError, match="not safe"):
        authorizer(Server(), Credentials(username="u", password="p"), f'Bearer realm="{realm}"').header(SCOPES)


@pytest.mark.parametrize(
    ("said", "error", "what"),
    [
        (answer(401), RegistryAuthError, "u may not get a token"),
        (answer(body={"other": 1}), RegistryError, "without a token"),
    ],
)
def test_a_server_that_gives_no_token(said, error, what):
    """The error names who asked, and not the password."""
    with pytest.raises(error, match=what) as caught:
        authorizer(Server(said), Credentials(username="u", password="secret")).header(SCOPES)
    assert "secret" not in str(caught.value)


def test_credentials_are_those_of_docker(tmp_path, monkeypatch):
    """By host, also under the old form with a URL; identity tokens too; none is no error."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auths = {
        "a.example:5000": {"auth": base64.b64encode(b"u:p:q").decode()},
        "https://b.example/v2/": {"auth": base64.b64encode(b"v:w").decode()},
        "c.example": {"identitytoken": "long"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert credentials.find("a.example:5000") == Credentials(username="u", password="p:q")
    assert credentials.find("b.example") == Credentials(username="v", password="w")
    assert credentials.find("c.example") == Credentials(identity_token="long")
    assert credentials.find("d.example") is None


def test_a_helper_that_is_not_installed(tmp_path, monkeypatch):
    """The error says where it is named."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"a.example": "no-such"}}))
    with pytest.warns(UserWarning, match="not installed"), pytest.raises(RegistryAuthError, match="cannot be read"):
        credentials.find("a.example")


def test_a_password_is_in_no_representation():
    """Neither logs nor tracebacks show it."""
    assert "secret" not in repr(Credentials(username="u", password="secret", identity_token="secret"))


def test_logins_of_another_file_are_nobodys(tmp_path, monkeypatch):
    """Where the file that is meant is not there, Docker's library takes that of the home directory; the docker command does not."""
    config, own = tmp_path / "config", tmp_path / "home" / ".docker"
    for directory in (config, own):
        directory.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    login = json.dumps({"auths": {"registry.example": {"auth": base64.b64encode(b"a:b").decode()}}})
    (own / "config.json").write_text(login)
    assert credentials.find("registry.example") is None
    (config / "config.json").write_text(login)
    assert credentials.find("registry.example") == Credentials(username="a", password="b")
