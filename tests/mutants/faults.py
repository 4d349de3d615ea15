"""Faults to plant in good images, each with the test that must find it and what that test must say.

A fault is a few lines of a Dockerfile on top of a good image, run as root; the user is put back afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchstrata.matrix.matrix import ROOT

CPU_BASE, CPU_SSH = "2.13-cpu-base", "2.13-cpu-ssh"
CUDA_BASE, CUDA_DEVEL = "2.8-cu121-base", "2.8-cu121-devel"

SITE = "/opt/venv/lib/python3*/site-packages"
CONTAINER = "/usr/local/lib/torchstrata/container"
MODULES = "/usr/local/lib/torchstrata/services"
HYGIENE = "base/test_hygiene.py"
ATTACKS = "base/test_attacks.py"
JUPYTER = "jupyter/test_jupyter.py"
SSH = "ssh/test_ssh.py"
ENVIRONMENT = "ssh/test_environment.py"
TRUTH = "base/test_truth.py"

TOKEN = "hf_" + 34 * "x"
"""Has the form of a token, and opens nothing."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is wrong with an image.

    :param what: a few words, for tables.
    :param image: the good image: cell and flavour.
    :param lines: of a Dockerfile; what begins with a lower-case letter is a shell command.
    :param test: the one that must fail: its flavour, and where it lies among that one's tests.
    :param says: what its report must contain.
    :param user: who the image runs as afterwards.
    """

    what: str
    image: str
    lines: tuple[str, ...]
    test: str
    says: str
    user: str = "1000:0"

    @property
    def cell(self) -> str:
        """The cell of the image."""
        return self.image.rpartition("-")[0]

    @property
    def flavour(self) -> str:
        """The flavour of the image."""
        return self.image.rpartition("-")[2]

    @property
    def dockerfile(self) -> str:
        """The Dockerfile that plants the fault."""
        lines = [line if line[0].isupper() else f"RUN {line}" for line in self.lines]
        return "\n".join([f"FROM pytorch-cuda:{self.image}", "USER 0:0", *lines, f"USER {self.user}", ""])


def fault(what: str, image: str, *lines: str, test: str, says: str, user: str = "1000:0") -> Fault:
    """Return a fault; the shorter way to write one."""
    return Fault(what=what, image=image, lines=lines, test=test, says=says, user=user)


def layers(rule: str) -> str:
    """Return the test of a rule for layers."""
    return f"{HYGIENE}::test_layers[{rule}]"


FAULTS = (
    # What a layer or the config carries along.
    fault(
        "SSH host key in the image",
        CPU_SSH,
        "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key",
        test=layers("host-key"),
        says="etc/ssh/ssh_host_ed25519_key",
    ),
    fault(
        "private key that a later layer removes",
        CPU_BASE,
        "openssl genpkey -algorithm ed25519 -out /srv/key",
        "rm /srv/key",
        test=layers("private-key"),
        says="srv/key: a private key",
    ),
    fault(
        "authorized_keys", CPU_BASE, "mkdir /root/.ssh && touch /root/.ssh/authorized_keys", test=layers("authorized-keys"), says="root/.ssh/authorized_keys"
    ),
    fault("token in the history", CPU_BASE, f"echo fetched with {TOKEN} >/dev/null", test=layers("token"), says="config: history: a token of Hugging Face"),
    fault("token in the environment", CPU_BASE, "ENV MODEL_TOKEN=0123456789", test=layers("token"), says="config: Env: a value of MODEL_TOKEN"),
    fault(
        "log of a thousand lines with secrets",
        CPU_BASE,
        f'for i in $(seq 1000); do echo "$i GET /model token={TOKEN}"; done >/srv/job.log',
        test=layers("token"),
        says="srv/job.log: a token of Hugging Face in line 1",
    ),
    fault("login file of git", CPU_BASE, "touch /home/dev/.git-credentials", test=layers("token"), says="home/dev/.git-credentials"),
    fault("password for root", CPU_BASE, "echo root:planted | chpasswd", test=layers("password"), says="etc/shadow: password of root"),
    fault(".git left behind", CPU_BASE, "git init -q /srv/sources", test=layers("git"), says="srv/sources/.git"),
    fault("pip's cache left behind", CPU_BASE, "mkdir -p /root/.cache/pip/http-v2 && touch /root/.cache/pip/http-v2/x", test=layers("cache"), says="http-v2/x"),
    fault(
        "package lists left behind", CPU_BASE, "touch /var/lib/apt/lists/mirror_InRelease", test=layers("leftover"), says="var/lib/apt/lists/mirror_InRelease"
    ),
    fault(
        "core file",
        CPU_BASE,
        """python3 -c 'open("/srv/dump", "wb").write(b"\\x7fELF\\x02\\x01\\x01" + bytes(9) + b"\\x04\\0" + bytes(99))'""",
        test=layers("core"),
        says="srv/dump: core file",
    ),
    fault("setuid shell", CPU_BASE, "cp /bin/sh /usr/bin/rootsh && chmod 4755 /usr/bin/rootsh", test=layers("setuid"), says="usr/bin/rootsh: mode 4755"),
    fault("programs that anybody may write", CPU_BASE, "chmod 777 /usr/local/bin", test=layers("writable"), says="usr/local/bin: mode 0777"),
    fault("data baked under /workspace", CPU_BASE, "touch /workspace/model.pt", test=layers("workspace"), says="workspace/model.pt"),
    fault("bytecode without a source", CPU_BASE, f"rm {SITE}/filelock/_api.py", test=f"{HYGIENE}::test_bytecode", says="without a source"),
    fault(
        "image 30 MB too large",
        CPU_BASE,
        "head -c 30000000 /dev/urandom >/usr/share/blob",
        test=f"{HYGIENE}::test_size",
        says=">/usr/share/blob # buildkit: 30 MB, new",
    ),
    # The operating system, and licences.
    fault("OS package removed", CPU_BASE, "dpkg --purge less", test=f"{TRUTH}::test_os_packages", says="differ from the lock"),
    fault(
        "OS package of another version",
        CPU_BASE,
        "sed -i '/^Package: less$/,/^$/s/^Version: .*/Version: 1/' /var/lib/dpkg/status",
        test=f"{TRUTH}::test_drift",
        says="-> 1",
    ),
    fault(
        "drift on record that is not there",
        CPU_BASE,
        "LABEL torchstrata.drift='no-such-package 1 -> 2'",
        test=f"{TRUTH}::test_drift",
        says="no-such-package 1 -> 2",
    ),
    fault(
        "apt does not look at security updates",
        CPU_BASE,
        "sed -i /security/d /etc/apt/sources.list",
        test=f"{HYGIENE}::test_os_packages_can_be_updated",
        says="bookworm-security",
    ),
    fault(
        "copyright file of an OS package removed",
        CPU_BASE,
        "rm /usr/share/doc/less/copyright",
        test=f"{HYGIENE}::test_licences_of_os_packages",
        says="no copyright file: ['less']",
    ),
    fault(
        "distribution without a licence",
        CPU_BASE,
        f"cd {SITE}/mpmath-*.dist-info && rm -rf LICENSE* licenses && sed -i '/^Licen[cs]e/d; /^Classifier: Licen/d' METADATA",
        test=f"{HYGIENE}::test_licences_of_distributions",
        says="no licence: ['mpmath']",
    ),
    # Not what the tag says.
    fault("another torch", CPU_BASE, f"sed -i s/2.13.0/2.12.0/ {SITE}/torch/version.py", test=f"{TRUTH}::test_torch_is_the_cell_s", says="2.12.0"),
    fault(
        "torch of another CUDA",
        CUDA_BASE,
        f"sed -i s/12.8/12.1/ {SITE}/torch/version.py",
        test=f"{TRUTH}::test_cuda_of_torch",
        says="compiled with different CUDA versions",
    ),
    fault(
        "metadata of another torch",
        CPU_BASE,
        f"sed -i 's/^Version: .*/Version: 2.12.0/' {SITE}/torch-*.dist-info/METADATA",
        test=f"{TRUTH}::test_distributions",
        says="-> 2.12.0",
    ),
    fault(
        "package that is not locked",
        CPU_BASE,
        f"cd {SITE} && mkdir extra-1.dist-info && printf 'Metadata-Version: 2.1\\nName: extra\\nVersion: 1\\n' >extra-1.dist-info/METADATA"
        " && echo extra-1.dist-info/METADATA,, >extra-1.dist-info/RECORD",
        test=f"{TRUTH}::test_distributions",
        says="extra (not locked) -> 1",
    ),
    fault(
        "file of torch deleted",
        CPU_BASE,
        f"rm {SITE}/torch/_meta_registrations.py",
        test=f"{TRUTH}::test_every_recorded_file",
        says="torch/_meta_registrations.py",
    ),
    fault(
        "one byte of a library flipped",
        CPU_BASE,
        f"""cd {SITE}/torch/lib && python3 -c 'f = open("libshm.so", "r+b"); f.seek(-1, 2); b = f.read(); f.seek(-1, 2); f.write(bytes([b[0] ^ 1]))'""",
        test=f"{TRUTH}::test_every_recorded_file",
        says="torch/lib/libshm.so",
    ),
    fault(
        "file that no package has brought", CPU_BASE, f"touch $(echo {SITE})/sitecustomize.py", test=f"{TRUTH}::test_no_unknown_file", says="sitecustomize.py"
    ),
    fault("label of another lock", CPU_BASE, "LABEL torchstrata.lock=0123", test=f"{TRUTH}::test_labels", says="'torchstrata.lock': '0123'"),
    fault("image.json of another build", CPU_BASE, "sed -i s/2.13.0/2.12.0/ /etc/torchstrata/image.json", test=f"{TRUTH}::test_facts_file", says="2.12.0"),
    fault(
        "label of another revision than image.json's",
        CPU_BASE,
        "LABEL org.opencontainers.image.revision=0123",
        test=f"{TRUTH}::test_facts_file_and_labels_agree",
        says="0123",
    ),
    fault("another OS release", CPU_BASE, "sed -i s/bookworm/trixie/ /usr/lib/os-release", test=f"{TRUTH}::test_os_release", says="'trixie'"),
    fault("library path lost", CUDA_BASE, "ENV LD_LIBRARY_PATH=", test=f"{TRUTH}::test_environment", says="LD_LIBRARY_PATH"),
    # CUDA's libraries and compiler.
    fault(
        "second cuDNN beside the first",
        CUDA_BASE,
        "cp /opt/cuda/nvidia/cudnn/lib/libcudnn.so.9 /usr/local/lib/libcudnn.so.9.1.0",
        test="base/test_cuda_libraries.py::test_one_copy_of_each",
        says="/usr/local/lib/libcudnn.so.9.1.0",
    ),
    fault(
        "CUDA runtime from elsewhere",
        CUDA_BASE,
        "cd /opt/cuda/nvidia/cuda_runtime/lib && mv libcudart.so.12 /usr/local/lib/ && ln -s /usr/local/lib/libcudart.so.12 .",
        test="base/test_cuda_libraries.py::test_one_copy_in_the_process",
        says="libcudart",
    ),
    fault(
        "empty library of CUDA",
        CUDA_BASE,
        ": >/opt/cuda/nvidia/nvtx/lib/libnvToolsExt.so.1",
        test="base/test_cuda_libraries.py::test_each_opens",
        says="libnvToolsExt.so.1",
    ),
    fault(
        "broken RPATH",
        CUDA_BASE,
        f"""cd {SITE}/torch/lib && python3 -c 'p = "libc10_cuda.so"; b = open(p, "rb").read(); open(p, "wb").write(b.replace(b"/../../nvidia/", b"/../../nowhere"))'""",
        test="base/test_closure.py::test_nothing_is_led",
        says="torch/lib/libc10_cuda.so",
    ),
    fault(
        "library of numpy removed",
        CPU_BASE,
        f"rm {SITE}/numpy.libs/libscipy_openblas*",
        test="base/test_closure.py::test_all_needs_are_met",
        says="libscipy_openblas",
    ),
    fault("nvcc removed", CUDA_DEVEL, "rm /opt/cuda-12.4/bin/nvcc", test="devel/test_compiler.py::test_release", says="nvcc"),
    # Who things run as.
    fault("image runs as root", CPU_BASE, test="base/test_users.py::test_default_user_is_numeric", says="'0:0' == '1000:0'", user="0:0"),
    fault(
        "service of root",
        CPU_BASE,
        'ENTRYPOINT ["/usr/bin/tini", "--"]',
        test=f"{HYGIENE}::test_no_process_of_root[image]",
        says="/usr/bin/tini",
        user="0:0",
    ),
    fault("sudo", CPU_BASE, "cp /bin/true /usr/bin/sudo", test="base/test_users.py::test_no_sudo", says="/usr/bin/sudo"),
    fault(
        "unknown uids have no name",
        CPU_BASE,
        "sed -i s/torchstrata// /etc/nsswitch.conf",
        test="base/test_users.py::test_any_user[12345-12345-0-/home/dev]",
        says="12345",
    ),
    fault(
        "a user's names believed by root",
        CPU_BASE,
        "sed -i 's/getuid() != 0 && //' /usr/local/lib/torchstrata/nss/torchstrata.c && gcc -shared -fPIC -o /usr/lib/x86_64-linux-gnu/libnss_torchstrata.so.2 /usr/local/lib/torchstrata/nss/torchstrata.c",
        test=f"{ATTACKS}::test_root_is_root[1000:0]",
        says="0 0 root",
    ),
    fault("su lends root's rights", CPU_BASE, "chmod u+s /usr/bin/su", test=f"{ATTACKS}::test_no_file_lends_rights[1000:0]", says="/usr/bin/su"),
    fault("empty passwords let in", CPU_BASE, "sed -i 's/pam_unix.so/& nullok/' /etc/pam.d/common-auth", test=f"{ATTACKS}::test_passwords", says="nullok"),
    fault(
        "cron's directory is the user's",
        CPU_BASE,
        "install -d -o 1000 /etc/cron.d",
        test=f"{ATTACKS}::test_nothing_but_the_user_s_own_can_be_written[1000:0]",
        says="/etc/cron.d",
    ),
    fault(
        "root's shells have the user's programs",
        CPU_BASE,
        ": >/usr/local/lib/torchstrata/root.sh",
        test=f"{ATTACKS}::test_root_runs_nothing_of_the_user[login shell]",
        says="'0'",
    ),
    fault(
        "library path is the user's",
        CUDA_BASE,
        "chown 1000 /opt/cuda/lib",
        test=f"{ATTACKS}::test_library_path_hides_nothing_of_the_system",
        says="'1000'",
    ),
    fault(
        "no init: zombies stay",
        CPU_BASE,
        r"""printf '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n' >/usr/bin/tini""",
        test="base/test_processes.py::test_orphans_are_reaped",
        says="grep -c ^Z",
    ),
    fault(
        "constraints emptied: pip replaces torch",
        CPU_BASE,
        ": >/etc/torchstrata/constraints.txt",
        test="base/test_install.py::test_torch_stays[torch==99.0-pip install]",
        says="torch-99.0",
    ),
    # Services.
    fault(
        "SSH takes passwords",
        CPU_SSH,
        f"sed -i 's/PasswordAuthentication no/PasswordAuthentication yes/; s/AuthenticationMethods publickey/AuthenticationMethods any/' {MODULES}/ssh.py",
        test=f"{SSH}::test_no_passwords[PreferredAuthentications=password]",
        says="Permission denied (publickey",
    ),
    fault(
        "SSH listens on another port",
        CPU_SSH,
        f"sed -i 's/Port {{port}}/Port {{port + 1}}/' {MODULES}/ssh.py",
        test=f"{SSH}::test_command",
        says="SSH is ready",
    ),
    fault("no sftp", CPU_SSH, f"sed -i s,openssh/sftp-server,openssh/none, {MODULES}/ssh.py", test=f"{SSH}::test_scp_and_sftp", says="assert"),
    fault(
        "no forwarding of ports",
        CPU_SSH,
        f"sed -i 's/AllowTcpForwarding yes/AllowTcpForwarding no/' {MODULES}/ssh.py",
        test=f"{SSH}::test_tcp_forwarding",
        says="assert",
    ),
    fault(
        "environment is lost over SSH",
        CPU_SSH,
        f"sed -i 's/return environment.of_session(.*/return session | {{b\"SHELL\": users.SHELL.encode()}}/' {CONTAINER}/session.py",
        test=f"{ENVIRONMENT}::test_given_variable[ssh command-PLAIN]",
        says="== 'plain'",
    ),
    fault(
        "token in the environment of kernels",
        CPU_SSH,
        "sed -i '/^ *\"JUPYTER_TOKEN\",$/d' /etc/torchstrata/services.json",
        test=f"{ENVIRONMENT}::test_secret[JUPYTER_TOKEN-kernel]",
        says="JUPYTER_TOKEN",
    ),
    fault(
        "Jupyter without a token",
        CPU_SSH,
        "rm /etc/jupyter/jupyter_server_config.d/torchstrata.json && sed -i 's/token = asked.*/token = \"\"/' /etc/jupyter/jupyter_server_config.py",
        test=f"{JUPYTER}::test_token_is_needed",
        says="403",
    ),
    fault(
        "Jupyter takes any origin",
        CPU_SSH,
        "echo 'c.ServerApp.allow_origin = \"*\"' >>/etc/jupyter/jupyter_server_config.py",
        test=f"{JUPYTER}::test_origin_is_checked",
        says="403",
    ),
    fault(
        "SSH offers SHA-1",
        CPU_SSH,
        f"sed -i 's/\"hmac-sha1.\", //' {MODULES}/ssh.py",
        test="ssh/test_neighbour.py::test_audit",
        says="hmac-sha1",
    ),
    fault(
        "SSH counts strangers together",
        CPU_SSH,
        f"sed -i 's/^MAX_STARTUPS: Final = .*/MAX_STARTUPS: Final = \"10:30:100\"/; s/^PER_SOURCE: Final = .*/PER_SOURCE: Final = 100/' {MODULES}/ssh.py",
        test="ssh/test_neighbour.py::test_setting[persourcemaxstartups]",
        says="'100' == '60'",
    ),
    fault(
        "a port that is no port is taken for the usual one",
        CPU_SSH,
        f"sed -i 's/^    if value and not (value.isascii.*/    if False:/' {CONTAINER}/settings.py",
        test="jupyter/test_settings.py::test_wrong_value[JUPYTER_PORT]",
        says="78",
    ),
    fault(
        "account without a password",
        CPU_BASE,
        "sed -i 's/^games:[^:]*:/games::/' /etc/shadow",
        test="base/test_baseline.py::test_accounts[empty password]",
        says="games",
    ),
    fault(
        "health check that is always true",
        CPU_SSH,
        'HEALTHCHECK CMD ["true"]',
        test=f"{JUPYTER}::test_health_follows_the_service",
        says="counts as healthy",
    ),
)

DOCUMENT = ROOT / "docs" / "faults.md"

INTRODUCTION = """\
# Faults that the tests must find

`nox -s mutants` plants each of these in a good image, by a small Dockerfile on top, and runs the test named for it: it must
pass on the good image, fail on the bad one, and say why. A fault that is not found ends the session with exit code 28. The images
`2.13-cpu` and `2.8-cu121` must be in the engine; each bad image is removed again. `nox -s mutants -- ssh` tries those with that word.

Written by `python -m tests.mutants --write` from `tests/mutants/faults.py`.

| fault | planted in | test: flavour, and file in `images/<flavour>/tests` |
|---|---|---|
"""


def document() -> str:
    """Return the table of all faults for people."""
    return INTRODUCTION + "".join(f"| {one.what} | `{one.image}` | `{one.test}` |\n" for one in FAULTS)
