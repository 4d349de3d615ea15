"""What a user in a container tries against root, and against another user of it."""

from __future__ import annotations

import json
import re

import pytest

from tests.images.boxes import COMPILES_ALONE, ONE_THREAD, PROBED, PROBES, VECTORS_KNOWN

STARTED = {"1000:0": "1000:0", "3000:3000": "3000:3000", "0:0": "1000:0"}
"""As whom a container is started, and who attacks in it."""

KERNEL = ("/proc", "/sys", "/dev")
PAYLOAD = ("/opt/venv", "/opt/cuda/nvidia", "/opt/cuda/cusparselt", "/opt/cuda-12.4")
OWN = ("/home/dev", *PAYLOAD, "/workspace", "/data", "/tmp", "/var/tmp", "/var/lib/torchstrata", "/run/lock")
"""What users of a container may write: theirs, and what is everybody's."""

RIGHTS = (PROBES / "rights.py").read_text(encoding="utf-8")

PLANT = """
for place in /tmp/.torchstrata /dev/shm/torchstrata-* /var/lib/extrausers /var/lib/misc; do
    mkdir -p $place 2>/dev/null
    for file in passwd shadow group; do
        { echo "root::$(id -u):0:root:/root:/bin/bash"; echo "eve::4242:4242::/tmp:/bin/bash"; echo "wheel::0:dev"; } >>$place/$file
    done 2>/dev/null
done
true
"""
"""Entries for every place that a name service might read."""


@pytest.fixture(scope="module", params=list(STARTED))
def attacked(request, start_shared):
    """A container with a process of root's and one of another user's in it, and who attacks it."""
    box, attacker = start_shared("sleep", "infinity", user=request.param), STARTED[request.param]
    box.until(lambda: box.run("pgrep", "-x", "sleep").status == 0, "the command")
    for user, seconds in (("0:0", "100001"), ("4242:4242", "100002")):
        box.container.exec_run(["/bin/sleep", seconds], user=user, environment={"SECRET": "hidden"}, detach=True)
        box.until(lambda seconds=seconds: box.run("pgrep", "-f", seconds, user="0:0").status == 0, f"a process of {user}")
    assert box.run("sh", "-c", PLANT, user=attacker).status == 0
    return box, attacker


PYTHON = "/usr/bin/python3 -c "

ATTACKS = {
    "become root by its empty password": "echo | su -c id root",
    "become a user of one's own making": "su -c id eve",
    "become another group": "sg shadow -c id",
    "delete root's password": "passwd -d root",
    "change root's shell": "chsh -s /tmp/shell root",
    "change one's own shell": "echo | chsh -s /tmp/shell",
    "enter a group of root's": "gpasswd -a dev shadow",
    "call setuid": PYTHON + "'import os; os.setuid(0)'",
    "call setgid": PYTHON + "'import os; os.setgid(42)'",
    "call setgroups": PYTHON + "'import os; os.setgroups([42])'",
    "give a program to root": "cp /bin/sh /tmp/given && chown 0:0 /tmp/given",
    "give a program capabilities": PYTHON
    + """'import os, shutil; shutil.copy("/bin/sh", "/tmp/capable");"""
    + """ os.setxattr("/tmp/capable", "security.capability", bytes.fromhex("0100000280000000000000000000000000000000"))'""",
    "make a device": "mknod /tmp/disk b 8 0",
    "mount a file system": "mount -t tmpfs none /mnt",
    "mount over a program": "mount --bind /tmp /usr/bin",
    "mount in a namespace": "unshare --mount mount --bind /tmp /usr/bin",
    "read passwords as root of a namespace": "unshare --user --map-root-user cat /etc/shadow",
    "read passwords": "cat /etc/shadow",
    "read passwords by a link": "ln /etc/shadow /tmp/linked && cat /tmp/linked",
    "be called by the kernel at a crash": "echo '|/tmp/shell' >/proc/sys/kernel/core_pattern",
    "be called by the kernel at the end of a group": "echo /tmp/shell >/sys/fs/cgroup/release_agent",
    "read memory": "head -c 1 /dev/mem",
    "be loaded into every program": "echo /tmp/evil.so >>/etc/ld.so.preload",
    "answer for names": "echo 'passwd: extrausers' >>/etc/nsswitch.conf",
    "be loaded as the name service": "cp /bin/true /usr/lib/*-linux-gnu/libnss_torchstrata.so.2",
    "be in every program's library path": "cp /bin/true /opt/cuda/lib/libz.so.1",
    "move the library path away": "mv /opt/cuda/lib /tmp/lib",
    "add a user": "echo 'eve::0:0::/:/bin/sh' >>/etc/passwd",
    "run by cron": "mkdir -p /etc/cron.d && echo '* * * * * root /tmp/shell' >/etc/cron.d/evil",
    "run in every login": "echo /tmp/shell >/etc/profile.d/evil.sh",
    "run in root's login": "echo /tmp/shell >>/root/.bashrc",
    "run at the start": "mkdir -p /etc/torchstrata/start.d && cp /bin/true /etc/torchstrata/start.d/evil",
    "run as the probe": "cp /bin/true /usr/local/bin/torchstrata-health",
    "run in the system's Python": "touch $(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')/sitecustomize.py",
    "be an authority for root": "echo >>/etc/ssl/certs/ca-certificates.crt",
    "run in root's packages": "touch /usr/lib/python3/dist-packages/evil.pth || touch /usr/local/lib/python3*/dist-packages/evil.pth",
    "stand before the system's programs": "cp /bin/true /usr/local/sbin/ls || cp /bin/true /usr/local/bin/ls",
    "read root's environment": "cat /proc/$(pgrep -f '[s]leep 100001')/environ | grep -z SECRET",
    "read root's files": "ls /proc/$(pgrep -f '[s]leep 100001')/root/",
    "write root's memory": "echo >/proc/$(pgrep -f '[s]leep 100001')/mem",
    "end root's process": "kill -9 $(pgrep -f '[s]leep 100001')",
    "read another's environment": "cat /proc/$(pgrep -f '[s]leep 100002')/environ | grep -z SECRET",
    "write another's memory": "echo >/proc/$(pgrep -f '[s]leep 100002')/mem",
    "end another's process": "kill -9 $(pgrep -f '[s]leep 100002')",
    "trace another's process": PYTHON
    + """'import ctypes, os, subprocess, sys; pid = int(subprocess.check_output(["pgrep", "-x", "-f", "/bin/sleep 100002"]));"""
    + """ sys.exit(ctypes.CDLL(None).ptrace(16, pid, 0, 0) != 0)'""",
}
"""Commands of which none may succeed."""


TRY_ALL = """
import json, subprocess, sys
for name, attack in json.load(sys.stdin).items():
    done = subprocess.run(["sh", "-c", attack], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(json.dumps([name, done.returncode, done.stdout]))
"""


@pytest.fixture(scope="module")
def tried(attacked):
    """How each attack ended, and what it printed."""
    box, attacker = attacked
    done = box.run("/usr/bin/python3", "-IS", "-c", TRY_ALL, user=attacker, stdin=json.dumps(ATTACKS).encode())
    assert done.status == 0, done
    return {name: (status, said) for name, status, said in map(json.loads, done.out.splitlines())}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack(tried, attack):
    """What would make a user root, or another user, fails, however the container was started."""
    status, said = tried[attack]
    assert status != 0, said


def test_nothing_but_the_user_s_own_can_be_written(attacked):
    """Of everything in the file system a user may write home, workspace, packages and temporary directories, and no more."""
    box, attacker = attacked
    found = rights(box, attacker, *KERNEL, *OWN)
    assert found["seen"] > 5000
    assert found["writable"] == []


def test_no_file_lends_rights(attacked):
    """No program runs as its owner or with capabilities: what is nobody's, nobody can borrow."""
    box, _ = attacked
    found = rights(box, "0:0", *KERNEL)
    assert found["seen"] > 20000
    assert found["lending"] == []


def rights(box, user, *own):
    """Return what the probe of rights prints for a user."""
    done = box.run("/usr/bin/python3", "-IS", "-c", RIGHTS, *own, user=user)
    assert done.status == 0, done.err
    return json.loads(done.out)


PROGRAMS = ("python3", "bash", "sh", "ls", "id", "stat", "whoami", "torchstrata-health", "torchstrata-doctor")

TRAP = """
printf '%s\\n' "import os; open('/tmp/ran', 'a').write(f'{os.getuid()} python\\n')" >/tmp/trap.py
chmod 666 /tmp/trap.py && touch /tmp/ran && chmod 666 /tmp/ran
for program in $PROGRAMS; do
    rm -f /opt/venv/bin/$program
    printf '#!/bin/sh\\necho "$(/usr/bin/id -u) %s" >>/tmp/ran\\nexec /usr/bin/%s "$@"\\n' $program $program >/opt/venv/bin/$program
    chmod +x /opt/venv/bin/$program
done
packages=$(echo /opt/venv/lib/python3*/site-packages)
user=$(/usr/bin/python3 -c 'import site; print(site.getusersitepackages())')
mkdir -p $user
for directory in $packages $user; do
    cp /tmp/trap.py $directory/sitecustomize.py
    cp /tmp/trap.py $directory/usercustomize.py
    echo 'exec(open("/tmp/trap.py").read())' >$directory/trap.pth
    sed -i 's/^/import os; /' $directory/trap.pth
done
cp /tmp/trap.py /workspace/colorsys.py
for file in .bashrc .profile .bash_profile .bash_login .inputrc; do echo 'echo "$(/usr/bin/id -u) rc" >>/tmp/ran' >>$HOME/$file; done
"""
"""Plants a trap wherever the user may: programs, packages and start files, each of which writes down who ran it."""

AS_ROOT = {
    "login shell": ("/bin/bash", "-lc", "ls; id; python3 -c 'import colorsys'; whoami"),
    "interactive shell": ("/bin/bash", "-ic", "ls; id; python3 -c 'import colorsys'; whoami"),
    "login shell of POSIX": ("/bin/sh", "-lc", "ls; id; python3 -c 'import colorsys'; whoami"),
    "environment": ("/bin/bash", "-lc", "python3 -m venv --without-pip --system-site-packages /srv/own && /srv/own/bin/python3 -c ''"),
    "health": ("/usr/local/bin/torchstrata-health",),
    "doctor": ("/usr/local/bin/torchstrata-doctor",),
    "health by its bare name": ("torchstrata-health",),
    "doctor by its bare name": ("torchstrata-doctor", "--quick"),
}
"""What root runs in a container, as docs/running.md says it should, and what engines run there."""


LITTLE = COMPILES_ALONE | VECTORS_KNOWN | ONE_THREAD
"""For the doctor, which starts Python for torch's compiler; each of them goes through the traps."""


@pytest.fixture(scope="module")
def trapped(start_shared):
    """A container that was started as root, in which its user has planted traps; the engine probes it as root."""
    box = start_shared("sleep", "infinity", user="0:0", **PROBED)
    box.until(lambda: box.run("/usr/bin/pgrep", "-x", "sleep").status == 0, "the command")
    done = box.run("/bin/sh", "-c", TRAP, user="1000:0", env={"PROGRAMS": " ".join(PROGRAMS), "HOME": "/home/dev"})
    assert done.status == 0, done
    return box


def ran_as(box):
    """Return the users who have run what was planted."""
    return {line.split()[0] for line in box.run("/bin/cat", "/tmp/ran").out.splitlines()}


def test_traps_work(trapped):
    """What is planted runs, if it is the user who asks."""
    assert trapped.run("bash", "-ic", "python3 -c ''", user="1000:0").status == 0
    assert ran_as(trapped) == {"1000"}


@pytest.mark.parametrize(
    "what",
    [*(what for what in AS_ROOT if what != "doctor"), pytest.param("doctor", marks=pytest.mark.costly)],
)
def test_root_runs_nothing_of_the_user(trapped, what):
    """Root's shells have the system's programs and Python and root's home; probes become the user before they look."""
    trapped.run(*AS_ROOT[what], user="0:0", env=LITTLE)
    assert "0" not in ran_as(trapped)


def test_root_at_a_restart_runs_nothing_of_the_user(trapped):
    """A container that starts as root starts again over what its user has planted, and is probed as root."""
    trapped.container.kill()
    trapped.container.start()
    trapped.until(lambda: trapped.run("/usr/bin/pgrep", "-x", "sleep").status == 0, "the command")
    assert trapped.is_healthy()
    assert "0" not in ran_as(trapped)


BESIDE = """
ns=$(readlink /proc/self/ns/mnt | tr -dc 0-9)
for root in /dev/shm /tmp; do
    ln -sfn $root $root/torchstrata-$ns-0
    mkdir -p $root/torchstrata-$ns-$(id -u)
    for place in $root $root/torchstrata-$ns-$(id -u); do
        rm -f $place/services.json
        if [ $1 = lie ]; then echo '[{"name": "x", "port": 1, "scheme": "http", "refused": "SPOOFED"}]' >$place/services.json; fi
        if [ $1 = pipe ]; then mkfifo $place/services.json; fi
    done
done
"""
"""Puts beside the state of a container, and in places of other users' names, what no probe may believe or wait for."""


@pytest.mark.parametrize("planted", ["nothing", "lie", "pipe"])
@pytest.mark.parametrize("attacker", ["1000:0", "4242:4242"])
def test_root_becomes_the_user_whatever_lies_beside_its_state(trapped, attacker, planted):
    """Who the container's user is, the kernel says: links and directories that somebody has put there neither keep root root nor speak for the services."""
    trapped.run("/bin/sh", "-c", BESIDE, "sh", planted, user=attacker)
    done = trapped.run("/usr/bin/timeout", "60", "/usr/local/bin/torchstrata-health", user="0:0")
    assert done.status in {0, 1}, done
    assert attacker == "1000:0" or "SPOOFED" not in done.out
    is_worst = (attacker, planted) == ("1000:0", "lie")
    trapped.run("/usr/local/bin/torchstrata-doctor", *([] if is_worst else ["--quick"]), user="0:0", env=LITTLE)
    assert "0" not in ran_as(trapped)


LIBRARIES = """
import os, subprocess
known = {line.split()[0] for line in subprocess.check_output(["/sbin/ldconfig", "-p"], text=True).splitlines()[1:]}
print(sorted(known & set(os.listdir("/opt/cuda/lib"))))
"""


@pytest.mark.cuda
def test_library_path_hides_nothing_of_the_system(host):
    """The one directory of the library path is root's, and has no name of a library of the system, which root's programs would load."""
    assert host.run("stat -c '%u %a' /opt/cuda /opt/cuda/lib").stdout.split() == ["0", "755", "0", "755"]
    assert host.run("/usr/bin/python3 -c %s", LIBRARIES).stdout.strip() == "[]"


NAMES = "import grp, pwd; print(pwd.getpwuid(0)[:3], *(pwd.getpwnam(name).pw_uid for name in ('root', 'dev')), grp.getgrgid(0).gr_name)"


def test_root_believes_no_authority_of_the_user(attacked):
    """Root's shells take the system's certificate authorities, not the bundle that the user's programs take."""
    box, _ = attacked
    assert "SSL_CERT_FILE=" in box.run("env", user="0:0").out
    assert "ca-bundle" not in box.run("/bin/bash", "-lc", "env", user="0:0").out


def test_root_is_root(attacked):
    """Root is called root, by every program, and nobody else is; what is root's is shown as root's."""
    box, _ = attacked
    assert box.run("whoami", user="0:0").out.strip() == "root"
    assert box.run("/usr/bin/python3", "-c", NAMES, user="0:0").out.strip() == "('root', 'x', 0) 0 1000 root"
    assert box.run("stat", "-c", "%U %G", "/etc/passwd").out.split() == ["root", "root"]


@pytest.mark.parametrize("name", ["eve", "4242", "3000"])
def test_root_believes_nobody_s_names(attacked, name):
    """Only /etc/passwd tells root who is who: neither what a user has written nor the container's user is known to it."""
    box, _ = attacked
    assert box.run("getent", "passwd", name, user="0:0").status == 2


@pytest.mark.parametrize(
    ("file", "wanted", "refused"), [("/etc/nsswitch.conf", r"^shadow:\s+files$", "extrausers"), ("/etc/pam.d/common-auth", "pam_unix", "nullok")]
)
def test_passwords(host, file, wanted, refused):
    """Passwords come from /etc/shadow alone, an empty one lets nobody in, and nobody has one."""
    text = host.file(file).content_string
    assert re.search(wanted, text, re.MULTILINE)
    assert refused not in text


def test_state_of_another_user_is_not_believed(attacked):
    """A probe of root's follows no link that a user has put in the place of its state, and prints nothing of a file of root's."""
    box, attacker = attacked
    trap = "d=/dev/shm/torchstrata-$(readlink /proc/self/ns/mnt | tr -dc 0-9)-$(id -u); mkdir -p $d; ln -sf /etc/shadow $d/services.json"
    assert box.run("sh", "-c", trap, user=attacker).status == 0
    done = box.run("/usr/local/bin/torchstrata-health", user="0:0")
    assert "root:" not in done.out + done.err
