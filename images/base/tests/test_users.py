"""Who a container runs as, and what is left of root."""

from __future__ import annotations

import subprocess

import pytest

from tests.images.boxes import mounted
from tests.images.wheel import make_wheel

WHO = "id -u; id -g; id -un; echo $HOME; touch $HOME/probe && echo writable"


def text(box):
    """Return what a finished container wrote to standard output."""
    box.ended()
    return box.container.logs(stderr=False).decode()


def test_default_user_is_numeric(engine, image):
    """The image's user is numeric and not root, so that runAsNonRoot works; no sudo is there."""
    config = engine.images.get(image).attrs["Config"]
    assert config["User"] == "1000:0"


@pytest.mark.parametrize(
    ("user", "uid", "gid", "home"),
    [
        ("1000:0", "1000", "0", "/home/dev"),
        ("501:20", "501", "20", "/tmp/home"),
        ("12345", "12345", "0", "/home/dev"),
        ("12345:0", "12345", "0", "/home/dev"),
        ("12345:23456", "12345", "23456", "/tmp/home"),
    ],
)
def test_any_user(start, user, uid, gid, home):
    """Any uid has a name and a home that can be written."""
    assert text(start("sh", "-c", WHO, user=user)).split() == [uid, gid, "dev", home, "writable"]


def test_no_sudo(start):
    """There is no sudo."""
    assert text(start("sh", "-c", "command -v sudo || echo none")).strip() == "none"


def test_user_that_is_not_a_number(image):
    """The engine itself refuses a user that is no number and no name, in one line."""
    done = subprocess.run(["docker", "run", "--rm", "--user", "nobody-here", image, "true"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nobody-here" in done.stderr


def test_root_becomes_dev_where_the_engine_made_the_directory(start, tmp_path):
    """An empty directory of root's, as the engine makes it, is handed to dev."""
    directory = tmp_path / "made"
    box = start("touch", "/workspace/file", user="root", volumes=mounted(directory))
    assert box.ended() == 0
    assert (directory.stat().st_uid, (directory / "file").stat().st_uid) == (1000, 1000)


def test_full_directory_of_root_is_not_touched(start, tmp_path, give):
    """A directory of root's with content is left as it is, and the start says what cures it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/file").write_text("mine")
    give(tmp_path / "work", "0:0")
    box = start("id", "-u", user="root", volumes=mounted(tmp_path / "work"))
    assert box.ended() == 0
    assert (tmp_path / "work").stat().st_uid == 0
    assert "/workspace cannot be written by 1000:0 - on the host: sudo chown -R 1000" in box.errors


def test_root_without_capabilities(start):
    """Root that cannot drop ends with one line that names the cure."""
    box = start("true", user="root", cap_drop=["ALL"])
    assert box.ended() == 77
    assert "without the capabilities to become another user - use --user 1000:0" in box.errors
    assert len(box.log.splitlines()) == 1


def test_root_has_no_capabilities_left(start):
    """After the drop nothing can be done that root may do."""
    shown = text(start("grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/self/status", user="root"))
    assert {line.split()[1] for line in shown.splitlines()} == {"0000000000000000"}


def test_terminal_belongs_to_the_user(image):
    """With a terminal, root's start hands it over: programs can open it by name."""
    command = f"docker run --rm -t --user root {image} sh -c 'echo opened >/dev/stdout && test -O $(tty) && echo mine'"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=False)
    assert "mine" in done.stdout, done


@pytest.mark.parametrize("user", ["1000:0", "12345:0"])
def test_pip_and_uv_install(start, user, tmp_path):
    """Packages can be installed by uid 1000 and any uid of group 0."""
    make_wheel(tmp_path)
    install = "pip install -q --no-index /wheels/*.whl && pip uninstall -qy probe && uv pip install -q --no-index /wheels/*.whl && python -c 'import probe'"
    box = start("sh", "-c", install, user=user, volumes=mounted(tmp_path, "/wheels", "ro"))
    assert box.ended() == 0, box.log


def test_other_groups_get_advice(start):
    """A user outside of group 0 is told how to be able to install."""
    box = start("true", user="12345:12345")
    box.ended()
    assert "pip cannot install as 12345:12345: use --user 12345:0 or --group-add 0" in box.errors


def test_mounted_home_is_seeded(start, workspace):
    """A mounted home gets the start files that it lacks; one that is there stays."""
    (workspace / ".bashrc").write_text("# mine\n")
    box = start("true", user="root", volumes=mounted(workspace, "/home/dev"))
    box.ended()
    assert (workspace / ".bashrc").read_text() == "# mine\n"


def test_empty_mounted_home_works(start, volume):
    """An empty volume as home gets start files."""
    assert ".profile" in text(start("ls", "-a", "/home/dev", volumes={volume: {"bind": "/home/dev"}}))


NAMES = "import getpass, pathlib, pwd, os; print(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name, pathlib.Path.home())"


@pytest.mark.parametrize("user", ["1000:0", "12345:0", "501:20"])
def test_programs_know_the_user(start, user):
    """Programs that ask for the user's name and home get them, whatever the uid."""
    found = text(start("/usr/bin/python3", "-c", NAMES, user=user)).split()
    assert found[:2] == ["dev", "dev"]
    assert found[2] == ("/home/dev" if user.endswith(":0") else "/tmp/home")


@pytest.mark.native  # QEMU has threads, and a process with threads gets no user namespace
def test_root_stays_in_a_user_namespace(start, tmp_path, give):
    """Where root is an ordinary user of the host, as under rootless engines, it stays, so that files belong to that user."""
    (tmp_path / "mine").touch()
    tmp_path.chmod(0o755)
    give(tmp_path, "0:0")
    inner = ("unshare", "--user", "--map-root-user", "/usr/local/bin/torchstrata-entrypoint", "sh", "-c", "id -u && touch /workspace/made")
    box = start(*inner, entrypoint=[], user="root", privileged=True, volumes=mounted(tmp_path))
    assert text(box).split() == ["0"], box.log
    assert (tmp_path / "made").stat().st_uid == 0


WITHOUT_START = (
    "import getpass, grp, os, pwd; print(getpass.getuser(), pwd.getpwnam('dev').pw_uid, os.environ['USER'], os.environ['LOGNAME'], os.environ['HOME'])"
)


@pytest.mark.parametrize("user", ["1000:0", "1234:1234", "2000000000:0"])
def test_names_need_no_start(start, user):
    """Without the entrypoint, as by ``--entrypoint python``, any uid has a name, and programs know user and home."""
    found = text(start("-c", WITHOUT_START, entrypoint=["python"], user=user)).split()
    assert found == ["dev", user.partition(":")[0], "dev", "dev", "/home/dev"]


def test_names_of_the_system_stay(start):
    """A uid that /etc/passwd names keeps its name; ``dev`` is the user all the same, for SSH."""
    assert text(start("sh", "-c", "id -un; id -u dev", user="33:33")).split() == ["www-data", "33"]


def test_home_of_somebody_else_is_not_used(start, volume):
    """In a shared ``/tmp`` a directory where another has made it is no home."""
    shared = {volume: {"bind": "/tmp"}}
    planted = "chmod 1777 /tmp; mkdir -m 777 /tmp/home; echo 'echo planted' >/tmp/home/.profile; chown -R 4242:4242 /tmp/home"
    assert start("-c", planted, entrypoint=["sh"], user="0:0", volumes=shared).ended() == 0
    found = text(start("bash", "-lc", "echo $HOME; stat -c '%u %a' $HOME", user="3000:3000", volumes=shared)).split()
    assert found[0].startswith("/tmp/home-")
    assert found[1:] == ["3000", "700"]


@pytest.mark.parametrize("user", ["0:0", "root"])
def test_start_as_root_says_what_becomes_of_it(start, user):
    """Whoever starts a container as root is told in one line as whom it goes on, and how to get a root shell."""
    box = start("id", "-u", user=user)
    assert text(box).strip() == "1000"
    line = "started as root, goes on as 1000:0 (root shell: docker exec -it -u 0 CONTAINER /bin/bash -l)"
    assert box.errors.count(line) == 1


def test_root_shell(start):
    """The root shell that the line names is root's: home, names, programs, Python, packages of the system."""
    box = start("sleep", "infinity")
    shown = box.run("/bin/bash", "-lc", "id -un; echo $HOME $USER $LOGNAME; command -v python3 ls; touch /usr/local/probe && echo wrote", user="0:0")
    assert shown.out.split() == ["root", "/root", "root", "root", "/usr/bin/python3", "/usr/bin/ls", "wrote"]


@pytest.mark.parametrize("options", [{"init": True}, {"pid_mode": "host"}])
def test_root_shell_within_a_program(start, options):
    """So is one that another program starts, where an init of root's is the first process, the engine's or the host's."""
    box = start("sleep", "infinity", user="0:0", **options)
    box.until(lambda: box.run("/usr/bin/pgrep", "-x", "sleep", "-u", "1000").status == 0, "the command")
    assert box.run("/usr/bin/timeout", "60", "/bin/bash", "-lc", "command -v python3", user="0:0").out.strip() == "/usr/bin/python3"


@pytest.mark.parametrize("init", [False, True])
def test_root_of_an_image_that_is_built(start, init):
    """Where nobody but root was before, as in a build, root has the environment of the image, so that ``RUN pip install`` works."""
    assert text(start("-lc", "command -v python3", entrypoint=["bash"], user="0:0", init=init)).strip() == "/opt/venv/bin/python3"


def test_environment_of_an_image_that_is_built(start):
    """An environment that a Dockerfile makes as root sees torch."""
    made = "python3 -m venv --without-pip --system-site-packages /srv/own && /srv/own/bin/python3 -c 'import importlib.util as u; print(u.find_spec(\"torch\").name)'"
    assert text(start("-c", made, entrypoint=["bash"], user="0:0")).strip() == "torch"
