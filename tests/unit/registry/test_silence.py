"""Registries that say nothing: somebody is told what is waited for, and it ends in one line."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import socket
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests import hostile
from tests.distribution import Distribution
from tests.waiting import PATIENCE, until
from torchstrata import progress
from torchstrata.catalogue.from_registry import RegistryReader
from torchstrata.matrix import matrix
from torchstrata.registry import http_session
from torchstrata.registry.patience import Patience
from torchstrata.registry.pool import answers
from torchstrata.registry.registry import Registry
from torchstrata.registry.transport import SilentError, Unanswered

PATIENT = Patience(connect=PATIENCE, answer=PATIENCE, greeting=PATIENCE, quiet=PATIENCE)
"""It tells nobody anything, and gives up nothing."""

ENDS = {"tries": 1, "connect": PATIENCE, "quiet": PATIENCE, "greeting": PATIENCE}


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Nobody is logged in anywhere."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@contextlib.contextmanager
def deaf():
    """Yield the host of something that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def falling_silent(but=lambda handler: False):
    """Yield the host of a registry that greets and then says nothing, but to what ``but`` answers, until an event is set; and that event."""
    released = threading.Event()

    def behave(handler):
        if but(handler):
            return
        released.wait(PATIENCE)
        hostile.answer(handler, {"tags": ["one"]})

    with hostile.registry(behave) as (host, _):
        try:
            yield host, released
        finally:
            released.set()


def test_who_never_answers_is_given_up_soon():
    """Long before a registry that has answered would be: the name or the port may be wrong."""
    with deaf() as host, pytest.raises(SilentError, match=r"does not answer to: GET /v2/") as caught:
        Registry(host, patience=replace(PATIENT, greeting=0.01)).tags("team/x")
    assert "check name, port, network and proxy" in caught.value.fix


def test_somebody_is_told_who_does_not_answer(capsys):
    """And for how long that is waited for at most; standard output stays as it was."""
    with deaf() as host, pytest.raises(SilentError):
        Registry(host, patience=Patience(tries=1, quiet=0.0, greeting=0.5)).tags("team/x")
    said = capsys.readouterr()
    assert said.err == f"waiting for {host}, 1 s at most: GET /v2/\n"
    assert not said.out


def test_somebody_is_told_what_a_registry_does_not_answer_to(said):
    """It has answered before; once it goes on, so does the work."""
    with falling_silent() as (host, released), Registry(host, patience=PATIENT) as registry, ThreadPoolExecutor(1) as pool:
        registry.transport.base()
        registry.transport.patience = replace(PATIENT, quiet=0.0)
        tags = pool.submit(registry.tags, "team/x")
        until(said, "a line about the registry", pause=0.02)
        released.set()
        assert tags.result() == ("one",)
    assert said().startswith(f"waiting for {host}, ")
    assert said().endswith(" s at most: list the tags of team/x\n")


def test_many_threads_that_wait_are_one_line(capsys):
    """Nobody reads the same eight times."""
    with deaf() as host:
        transport = Registry(host).transport
        for number in range(8):
            transport._remark("waiting", f"line {number}")
        transport._remark("trying again", "another kind")
    assert capsys.readouterr().err == "line 0\nanother kind\n"


def test_threads_wait_together_for_a_registry_that_says_nothing():
    """Else each would wait as long, one after the other."""
    asked, greeted, threads = [], [], 8

    def hang_up():
        with contextlib.suppress(OSError):  # the end of the test
            while connection := server.accept()[0]:
                greeted.append(1)
                until(lambda: len(asked) == threads, "all threads ask")
                connection.close()

    def ask(name):
        asked.append(name)
        return registry.tags(name)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=hang_up, daemon=True).start()
        registry = Registry(f"127.0.0.1:{server.getsockname()[1]}", patience=replace(PATIENT, tries=1))
        with pytest.raises(SilentError):
            answers(ask, [f"team/{number}" for number in range(threads)])
        server.shutdown(socket.SHUT_RDWR)
    assert len(greeted) < threads


def test_registry_that_falls_silent_is_given_up():
    """In one line, after its patience."""
    refused = pytest.raises(SilentError, match="does not answer to: list the tags of team/x")
    with falling_silent() as (host, _), Registry(host, patience=Patience(**ENDS, answer=0.05)) as registry, refused:
        registry.tags("team/x")


def test_nobody_waits_for_a_silent_registry_after_ctrl_c():
    """A thread that waits for an answer ends when the work is cancelled, and not when the registry or its patience does."""
    asked = threading.Event()

    def silent(_):
        asked.set()
        return False

    with falling_silent(silent) as (host, released), Registry(host, patience=PATIENT) as registry, ThreadPoolExecutor(1) as pool:
        tags = pool.submit(registry.tags, "team/x")
        assert asked.wait(PATIENCE)
        registry.cancel()
        with pytest.raises(CancelledError):
            tags.result(PATIENCE)
        assert not released.is_set()


def test_work_is_cancelled_while_a_thread_begins_to_wait():
    """To Python it is an error if a set grows while somebody lists it."""
    transport, used = Registry("localhost:1").transport, [socket.socket() for _ in range(3)]

    class Listed(weakref.WeakSet):
        def __iter__(self):
            for each in super().__iter__():
                if thread.ident is None:
                    thread.start()
                    until(lambda: http_session._LOCK.locked() or not thread.is_alive(), "the thread has to wait, or does not")
                yield each

    thread = threading.Thread(target=transport._watch, args=used[2:], daemon=True)
    transport._sockets = Listed(used[:2])
    transport.cancel()
    thread.join(PATIENCE)
    assert set(transport._sockets) == set(used)
    for each in used:
        each.close()


def test_a_greeting_that_failed_goes_while_nobody_looks_at_it():
    """Who saw it half there would wait for one that never comes."""
    lock, wanted = threading.Lock(), []

    class Counted:
        def __enter__(self):
            wanted.append(1)
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(PATIENCE)
        with Registry(f"127.0.0.1:{server.getsockname()[1]}", patience=replace(PATIENT, tries=1)) as registry:
            registry.transport._lock = Counted()
            asked = pool.submit(registry.transport.base)
            greeted, _ = server.accept()
            with lock:
                greeted.close()
                until(lambda: len(wanted) > 1 or asked.done(), "the thread has to wait, or does not")
                assert not asked.done()
            with pytest.raises(SilentError):
                asked.result(PATIENCE)


def test_nobody_waits_for_threads_after_ctrl_c():
    """Neither does the program, whichever registry its threads wait for; others of them begin nothing."""
    asked = []

    def silent(_):
        asked.append(1)
        if len(asked) == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # what Ctrl-C does; _thread.interrupt_main wakes nobody
        return False

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with falling_silent(silent) as (host, released), Registry(host, patience=PATIENT) as registry:
            registry.transport.base()
            with pytest.raises(KeyboardInterrupt):
                answers(registry.tags, [f"team/{number}" for number in range(100)])
            assert not released.is_set()
    finally:
        signal.signal(signal.SIGINT, usual)
    assert len(asked) < 100


def test_pause_that_a_registry_asks_for_is_told(capsys, monkeypatch):
    """It may be minutes."""
    with Distribution(refusals=[(429, {"Retry-After": "200"})]).serve() as served, Registry(served.host, patience=Patience(greeting=PATIENCE)) as registry:
        registry.transport.base()
        served.refusals = [(429, {"Retry-After": "200"})]
        monkeypatch.setattr(registry.transport.cancelled, "wait", lambda _: False)
        registry.tags("team/x")
    assert f"{served.host} answers 429 to: list the tags of team/x; trying again in 200 s\n" in capsys.readouterr().err


def test_pause_that_is_longer_than_somebody_waits_is_not_begun():
    """They are told when to come back."""
    with Distribution().serve() as served, Registry(served.host, patience=replace(Patience.attended(), greeting=PATIENCE)) as registry:
        registry.transport.base()
        served.refusals = [(429, {"Retry-After": "200"})]
        with pytest.raises(Unanswered, match="answers 429") as caught:
            registry.tags("team/x")
    assert caught.value.fix == f"run it again in 200 s, as {served.host} asks"


@pytest.mark.parametrize(
    ("patience", "tries", "answer", "longest"),
    [
        (Patience(connect=1, whole=1000, first=1, longest=2), 4, 10, 4 * 11 + 1 + 2 + 2),
        (Patience(connect=1, whole=5, first=1, longest=2), 4, 10, 5 + 11),
        (Patience(connect=1, whole=5), 1, 10, 11),
    ],
)
def test_longest_wait_is_that_of_all_tries(patience, tries, answer, longest):
    """With the pauses between them; none begins after the whole time."""
    assert patience.longest_wait(tries, answer) == longest


def test_somebody_who_waits_is_not_kept_for_more_than_a_minute():
    """Neither by a registry that never answers, nor by one that falls silent."""
    attended = Patience.attended()
    for patience in (attended, attended.of_greeting):
        assert patience.longest_wait(patience.tries, patience.answer) <= 60
    assert progress.QUIET < 5


def test_a_night_waits_for_a_registry_that_starts_again():
    """Nobody waits before a terminal, and a registry that is restarted answers after some minutes at most."""
    assert Patience().of_greeting == Patience()


def test_catalogue_ends_where_its_registry_falls_silent():
    """It does not ask about each image in turn, to say of each that there was no answer."""
    tags = [f"tag{number}" for number in range(50)]
    asked = []

    def lists(handler):
        if not handler.path.endswith("/tags/list"):
            asked.append(handler.path)
            return False
        hostile.answer(handler, {"tags": tags})
        return True

    with falling_silent(lists) as (host, _), Registry(host, patience=Patience(**ENDS, answer=0.2)) as registry:
        reader = RegistryReader(matrix=matrix.load(), registry=registry, repository="team/x", trust=None, now=dt.datetime.now(dt.UTC))
        with pytest.raises(SilentError):
            reader.catalogue()
    assert len(asked) < len(tags)
