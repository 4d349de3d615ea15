"""Services that are data: what is read, what is refused in one line, and one that runs for real under the supervisor."""

from __future__ import annotations

import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from container import declarations, doctor, extension, plain, planning, services, settings, start, state, supervisor
from container.extension import Extension
from services import jupyter, ssh

from tests.declared import declared
from tests.waiting import PATIENCE, until

DECLARED = declared("ssh")
MODULES = {"jupyter": jupyter, "ssh": ssh}
SERVER = """
import http.server, os, pathlib, sys

port, place = int(sys.argv[1]), pathlib.Path(sys.argv[2])
token = place / "GYM_TOKEN"
print("noise that nobody wants", flush=True)
print("token", token.read_text() if token.exists() else "none", os.environ.get("GYM_TOKEN"), flush=True)


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""
GYM = {
    "command": [sys.executable, "-c", SERVER, "{port}", "{state}"],
    "port": 8000,
    "health": {"http": "/healthz"},
    "ready": "the gym is open: {url}",
    "secrets": ["GYM_TOKEN"],
    "quiet": ["noise"],
}


def without(field):
    """Return the fields of the service but for one."""
    return {name: value for name, value in GYM.items() if name != field}


@pytest.fixture
def image(tmp_path, monkeypatch):
    """Where an image has its services: return what adds one, by its fields or by any text."""
    added = tmp_path / "services.d"
    added.mkdir()
    monkeypatch.setattr(declarations, "IMAGE", tmp_path / "services.json")
    monkeypatch.setattr(declarations, "ADDED", added)
    monkeypatch.setattr(state, "ROOTS", (tmp_path,))

    def add(content, name="gym"):
        (added / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return added / f"{name}.json"

    return add


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Write a module of a service, as whoever derives an image does."""
    place = tmp_path / "modules"
    place.mkdir()
    monkeypatch.setattr(sys.modules["services"], "__path__", [str(place)])
    yield (place / "broken.py").write_text
    sys.modules.pop("services.broken", None)


def planned(given=None):
    """Plan what an image runs without a command; return its services."""
    wanted = declarations.wanted(declarations.read(), given or {})
    assert wanted is not None
    assert planning.claim(wanted) == ""
    planning.plan(wanted, given or {}, Path("/nonexistent"))
    return {service.name: service for service in services.recall()}


@pytest.mark.parametrize("module", MODULES)
def test_modules_keep_to_the_protocol(module):
    """Each function of a module that the protocol knows has the parameters that it has there; so has each of a service that is data alone."""
    functions = {name: function for name, function in vars(Extension).items() if inspect.isfunction(function) and not name.startswith("_")}
    own = {name: getattr(MODULES[module], name) for name in functions if hasattr(MODULES[module], name)}
    assert {"plan", "command"} <= own.keys()
    for name, function in (*own.items(), *((name, getattr(plain, name)) for name in functions)):
        assert list(inspect.signature(function).parameters) == list(inspect.signature(functions[name]).parameters)[1:]


@pytest.mark.parametrize("one", DECLARED, ids=lambda one: one.name)
def test_a_module_is_asked_for_what_it_checks(one):
    """A start loads a module for the variables that its declaration names: all that the module has a check for."""
    assert {gate.name for gate in MODULES[one.name].GATES} == set(one.variables)


def test_an_image_without_services(image):
    """Where there is no file there is no service, and a shell runs."""
    catalog = declarations.read()
    assert (catalog.services, catalog.command, declarations.wanted(catalog, {})) == ((), ("bash",), None)


def test_a_derived_image_adds_a_service(image):
    """A file beside the image's own adds a service; one of the same name takes the place of the image's."""
    declarations.IMAGE.write_text(json.dumps({"services": {"gym": GYM, "other": GYM | {"port": 1}}, "command": ["python"]}))
    image(GYM | {"port": 9})
    catalog = declarations.read()
    assert [(one.name, one.port, one.variable) for one in catalog.services] == [("gym", 9, "GYM_PORT"), ("other", 1, "OTHER_PORT")]
    assert catalog.command == ("python",)


@pytest.mark.parametrize(
    ("given", "names"), [({}, ["gym"]), ({"TORCHSTRATA_SERVICES": "later"}, ["later"]), ({"TORCHSTRATA_SERVICES": "gym, later"}, ["gym", "later"])]
)
def test_a_service_that_waits_to_be_asked(image, given, names):
    """It runs only where the variable names it."""
    image(GYM)
    image(GYM | {"starts": "asked"}, "later")
    assert [one.name for one in declarations.wanted(declarations.read(), given) or ()] == names


def test_nothing_starts_by_itself(image):
    """Where every service waits to be asked, the image's command runs; an empty list asks for no service at all, which nothing can run for."""
    image(GYM | {"starts": "asked"})
    assert declarations.wanted(declarations.read(), {}) is None
    assert planned({"TORCHSTRATA_SERVICES": ""}) == {}


def test_unknown_service(image):
    """A name that no service has ends the start, and those that there are are named."""
    image(GYM)
    with pytest.raises(settings.SettingError) as refused:
        settings.check({"TORCHSTRATA_SERVICES": "gim"}, declarations.gates(declarations.read().services))
    assert (refused.value.what, refused.value.fix) == ("TORCHSTRATA_SERVICES names gim, which is no service", "give some of: gym")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (without("port"), "has no port"),
        (without("command"), "has no command"),
        (without("health"), "has no health"),
        (GYM | {"prot": 1}, "has prot, which is no field of a service"),
        (GYM | {"port": "8000"}, "has a port that is not a number from 1 to 65535"),
        (GYM | {"port": True}, "has a port that is not a number from 1 to 65535"),
        (GYM | {"port": 65536}, "has a port that is not a number from 1 to 65535"),
        (GYM | {"command": ["python"]}, "has a command that is not a list of words that begins with the path of a program"),
        (GYM | {"command": "/bin/sh"}, "has a command that is not a list of words that begins with the path of a program"),
        (GYM | {"health": {"http": "healthz"}}, "has a health that is not one of http: /PATH"),
        (GYM | {"health": {"http": "/a b"}}, "has a health that is not one of http: /PATH"),
        (GYM | {"health": {"http": "/", "tcp": True}}, "has a health that is not one of http: /PATH"),
        (GYM | {"health": {"tcp": False}}, "has a health that is not one of http: /PATH"),
        (GYM | {"health": {"ping": "x"}}, "has a health that is not one of http: /PATH"),
        (GYM | {"starts": "never"}, "has a starts that is not always or asked"),
        (GYM | {"ready": "a\nb"}, "has a ready that is not a line"),
        (GYM | {"secrets": ["gym token"]}, "has a secrets that is not a list of names of variables"),
        (GYM | {"quiet": "noise"}, "has a quiet that is not a list of texts"),
        (GYM | {"module": "../x"}, "has a module that is not the name of a module"),
        ([], "has no fields"),
        ("{", "is not JSON"),
        ("\0", "is not JSON"),
        (70_000 * " ", "cannot be read: it has more than 64 kB"),
    ],
)
def test_wrong_fields(image, capsys, fields, said):
    """A service whose file is wrong does not start, in one line that names the file; another one runs."""
    path = image(fields)
    image(GYM, "other")
    found = planned()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"torchstrata: gym does not start: {path}")
    assert said in line
    assert (bool(found["gym"].refused), found["other"].refused) == (True, "")


def test_wrong_fields_still_have_secrets(image):
    """What a service that cannot run calls a secret stays one."""
    image(GYM | {"port": 0})
    assert declarations.secrets(declarations.read().services) == ("GYM_TOKEN",)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"services": []}', "\xff"])
def test_image_that_is_damaged(image, monkeypatch, capsys, content):
    """Where nobody knows which services there are nothing starts, whatever was asked for: one line, status 78."""
    declarations.IMAGE.write_text(content, encoding="latin-1")
    monkeypatch.setattr(start.endings, "heed", lambda: None)
    assert start.main(["true"]) == start.NOTHING_RUNS
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"torchstrata: {declarations.IMAGE} ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import missing_library", "fails in check: ModuleNotFoundError: No module named 'missing_library'"),
        ("def plan(:", "fails in check: SyntaxError"),
        ("raise RuntimeError('on import')", "fails in check: RuntimeError: on import"),
        ("def plan(declared, given, home):\n    return 1 / 0", "fails in plan: ZeroDivisionError"),
        ("def plan(declared):\n    return None", "fails in plan: TypeError"),
        ("plan = 7", "fails in plan: TypeError"),
        ("def plan(declared, given, home):\n    return 'gym'", "fails in plan: TypeError: it returns no service"),
        ("def check(given):\n    raise KeyError('GYM')", "fails in check: KeyError"),
        ("def environment():\n    return {'A': 1}", "fails in environment: TypeError: it returns no variables"),
        ("def secrets(declared):\n    return open('/nonexistent').read()", "fails in secrets: FileNotFoundError"),
    ],
)
def test_module_that_fails(image, broken, capsys, text, said):
    """A service whose module is broken does not start, in one line; another one runs, and the container with it."""
    broken(text)
    image(GYM | {"module": "broken"})
    image(GYM | {"port": 8001}, "other")
    found = planned()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("torchstrata: gym does not start: its module broken.py fails in ")
    assert said in line
    assert (bool(found["gym"].refused), found["other"].refused) == (True, "")
    assert planning.environment(declarations.read().services) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"module": "nowhere"}, "No module named 'services.nowhere'"),
        ({"command": ["/opt/gym/serve"]}, "/opt/gym/serve is no program of this image"),
    ],
)
def test_module_or_program_that_is_not_there(image, capsys, fields, said):
    """What nobody has copied is named, instead of tried again and again."""
    image(GYM | fields)
    assert said in planned()["gym"].refused
    assert capsys.readouterr().err.splitlines()[-1].startswith("torchstrata: no service can run: the container ends here")


def test_module_has_the_last_word(image, broken):
    """A module may add to what data says, and refuse a value of its own variables, without being asked for other starts."""
    broken(
        "from container import plain, settings\n"
        "def check(given):\n    raise settings.SettingError('GYM_MODE=x is none', 'leave it out')\n"
        "def environment():\n    return {'GYM_HOME': '/gym'}\n"
        "def command(declared, service):\n    return (*plain.command(declared, service), '--more')\n"
    )
    image(GYM | {"module": "broken", "variables": ["GYM_MODE"]})
    (one,) = declarations.read().services
    extension.check([one], {"GYM_MODES": "x"})
    with pytest.raises(settings.SettingError, match="GYM_MODE=x is none"):
        extension.check([one], {"GYM_MODE": "x"})
    assert planning.environment([one]) == {"GYM_HOME": "/gym"}
    assert extension.of(one, plain.command)(one, services.asked(one, {}))[3:] == ("8000", str(state.directory() / "gym"), "--more")


def test_port_that_is_taken(image, capsys):
    """The line names the variable to set."""
    image(GYM | {"port_variable": "GYM_LISTEN"})
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen(1)
        port = other.getsockname()[1]
        assert planned({"GYM_LISTEN": str(port)})["gym"].refused == f"port {port} is taken"
    assert f"gym does not start: port {port} is taken - set GYM_LISTEN" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read: No such file"), ("", "is empty"), ("a\nb", "has control characters")])
def test_secret_file_that_cannot_be_used(image, tmp_path, content, said):
    """A service does not start without the secret that it was given."""
    image(GYM)
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    assert said in planned({"GYM_TOKEN_FILE": str(path)})["gym"].refused


@pytest.mark.parametrize("value", ["relative", "/a\0b"])
def test_name_of_a_secret_file(image, value):
    """What cannot be a path ends the start."""
    image(GYM)
    with pytest.raises(settings.SettingError, match="GYM_TOKEN_FILE="):
        settings.check({"GYM_TOKEN_FILE": value}, declarations.gates(declarations.read().services))


@pytest.mark.parametrize(
    ("health", "sends", "trouble"),
    [
        ({"tcp": True}, b"", ""),
        ({"banner": "220 "}, b"220 ready\r\n", ""),
        ({"banner": "220 "}, b"SSH-2.0-x\r\n", "answers b'SSH-2.0-x\\r\\n' instead of 220 "),
        ({"http": "/x"}, b"HTTP/1.0 200 OK\r\n\r\n", ""),
        ({"http": "/x"}, b"HTTP/1.0 503 Later\r\n\r\n", "/x answers HTTP/1.0 503"),
    ],
)
def test_questions_of_the_probe(image, health, sends, trouble):
    """A service is up when it takes connections, says its banner, or answers 200: whatever its file asks for."""
    image(GYM | {"health": health})
    (one,) = declarations.read().services
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.fileno()
        script = f"import socket; c, _ = socket.socket(fileno={number}).accept(); c.sendall({sends!r}); c.recv(4096); c.close()"
        answering = subprocess.Popen([sys.executable, "-c", script], pass_fds=(number,))
        service = services.asked(one, {"GYM_PORT": str(server.getsockname()[1])})
        assert doctor.health.trouble(service) == trouble
    answering.wait(PATIENCE)


def test_doctor_tells_of_what_is_wrong(image, broken):
    """It names a file that is wrong also where a command runs, and a module that fails to tell."""
    broken("def findings(service):\n    return [1 / 0]")
    path = image(without("port"))
    (finding,) = doctor.running()
    assert (finding.subject, finding.severity, finding.what) == ("gym", doctor.ERROR, f"{path}: gym has no port")
    image(GYM | {"module": "broken"})
    (one,) = declarations.read().services
    (finding,) = doctor._told(one, services.asked(one, {}))
    assert finding.what == "its module broken.py fails in findings: ZeroDivisionError: division by zero"


RUN = """
import os, pathlib, subprocess, sys

if sys.argv[1] == "init":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "start", *sys.argv[3:]]).returncode)

from container import declarations, environment, planning, serve, state

root = pathlib.Path(sys.argv[2])
declarations.IMAGE, declarations.ADDED, state.ROOTS = root / "services.json", root / "services.d", (root,)
catalog, given = declarations.read(), dict(os.environ)
wanted = declarations.wanted(catalog, given)
assert planning.claim(wanted) == ""
assert planning.plan(wanted, given, root)
for name in environment.secret(given, declarations.secrets(catalog.services)):
    del os.environ[name]
print("serving", os.getpid(), flush=True)
sys.exit(serve.main([]))
"""
"""A container's start, as much of it as a test needs, below a process that stands for the init: a stop ends all that runs below that."""


@pytest.fixture
def running(image, tmp_path):
    """Run the services of the image, and end them; return the process that is asked to stop, and its log."""
    log = tmp_path / "log"
    started = []

    def run(**given):
        words = [sys.executable, "-c", RUN, "init", RUN, str(tmp_path)]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], **given}
        with log.open("w") as file:
            started.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment))
        until(lambda: log.read_text().startswith("serving "), "the supervisor")
        return started[0], int(log.read_text().split()[1]), log

    yield run
    for process in started:
        if process.poll() is None:
            until(lambda: log.read_text().startswith("serving "), "the supervisor")
            os.kill(int(log.read_text().split()[1]), signal.SIGTERM)
            process.wait(PATIENCE)


@pytest.fixture
def port():
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def asked(port):
    """Ask the service of the test; return the number of its process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
        return int(answer.read())


@pytest.mark.parametrize("by", ["value", "file"])
def test_service_that_is_data_alone(image, running, tmp_path, port, by):
    """It gets its port, its private directory and its secret, which neither log, command line nor environment shows; it says once that it is
    ready, starts again when it was killed, and ends when it is asked to.
    """
    (tmp_path / "secret").write_text("open-sesame\n")
    image(GYM)
    secret = {"GYM_TOKEN": "open-sesame"} if by == "value" else {"GYM_TOKEN_FILE": str(tmp_path / "secret")}
    process, serving, log = running(GYM_PORT=str(port), **secret)
    until(lambda: "the gym is open" in log.read_text(), "the service")
    first = asked(port)
    assert (state.directory() / "gym/GYM_TOKEN").stat().st_mode & 0o777 == 0o600
    shown = Path(f"/proc/{first}/environ").read_bytes() + Path(f"/proc/{first}/cmdline").read_bytes()
    assert b"open-sesame" not in shown.replace(str(tmp_path).encode(), b"")
    os.kill(first, signal.SIGKILL)
    until(lambda: log.read_text().count("gym | token") == 2, "the service again")
    os.kill(serving, signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    lines = log.read_text().splitlines()
    assert lines.count(f"torchstrata: the gym is open: http://127.0.0.1:{port}") == 1
    assert lines.count("gym | token *** None") == 2
    assert "torchstrata: gym was ended by signal 9; it starts again in 1 s" in lines
    assert [line for line in lines if "noise" in line or "open-sesame" in line] == []
    assert not state.directory().exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("command = lambda declared, service: 7", "it returns no command"),
        ("command = lambda declared, service: []", "it returns no command"),
        ("command = lambda declared, service: [1 / 0]", "ZeroDivisionError"),
        ("from container import settings\ncommand = lambda declared, service: settings.port('GYM_PORT', 'x')", "SettingError"),
        ("command = lambda declared, service: ['/bin/true', chr(0)]", "embedded null byte"),
    ],
)
def test_command_that_a_module_cannot_make(image, broken, tmp_path, text, said):
    """What is no command is said in the log, and tried again like a program that fails: the other services run on."""
    broken(text)
    image(GYM | {"module": "broken"})
    (one,) = declarations.read().services
    service = services.asked(one, {})
    stream = io.StringIO()
    supervised = supervisor.Supervised("gym", lambda: extension.of(one, plain.command)(one, service), lambda: False, list)
    supervised.tend({}, supervisor.Log(stream))
    lines = stream.getvalue().splitlines()
    assert said in lines[0]
    assert lines[1] == "torchstrata: gym ended with status 1; it starts again in 1 s"
