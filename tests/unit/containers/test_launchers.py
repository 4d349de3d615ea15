"""Files that start a container elsewhere: as they were last looked at, and as what they are for reads them."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from itertools import chain, product, starmap
from pathlib import Path
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.endpoints import endpoints
from tests.scripts import script
from torchstrata.containers import launchers
from torchstrata.containers.description import ContainerDescription, Gpus, of_image
from torchstrata.containers.launchers import Launcher
from torchstrata.errors import NoGpuError

GOLDEN = Path(__file__).parent / "golden"
"""``TORCHSTRATA_UPDATE_GOLDEN=1 pytest tests/unit/containers/test_launchers.py`` writes what is rendered now; look at the difference."""

UPDATE = os.environ.get("TORCHSTRATA_UPDATE_GOLDEN") == "1"
KUBERNETES = json.loads((Path(__file__).parent / "kubernetes-1.37.json").read_text(encoding="utf-8"))
DIGEST = f"sha256:{'c0ffee' * 10}1234"

PUBLISHED = of_image(
    f"registry.example/team/pytorch-cuda:2.8-cu121-ssh@{DIGEST}",
    tag="2.8-cu121-ssh",
    title="PyTorch 2.8.0 with CUDA 12.8 (for hosts of CUDA 12.1) on debian13, flavour ssh",
    endpoints=endpoints("ssh"),
    cuda=True,
)
LOCAL = ContainerDescription(
    image=f"pytorch-cuda:2.13-cpu-jupyter@{DIGEST}",
    name="it's mine",
    title="PyTorch 2.13.0 with no CUDA on debian12, flavour jupyter",
    endpoints=endpoints("jupyter"),
    user="1234:0",
    shm=512 << 20,
    workspace="/srv/ada/my work, $HOME",
)
ANYBODY = replace(PUBLISHED, is_for_anybody=True)
CASES = {"published": PUBLISHED, "local": LOCAL, "anybody": ANYBODY}
ALL = [*product(get_args(Launcher), CASES)]

HOSTILE = replace(
    LOCAL,
    gpus=Gpus(count=0, devices=("0", "GPU-1")),
    endpoints=endpoints("ssh"),
    authorized_keys=("ssh-ed25519 AAAA $(touch /tmp/x) `id` \"'",),
    workspace="/a b/'\"$(id)`id`,${HOME}",
)


def rendered(launcher, case):
    """Return text by path of the files of a launcher."""
    return launchers.RENDERERS[launcher](CASES.get(case, HOSTILE))


def written(launcher, description):
    """Return the text of the file to begin with."""
    return next(iter(launchers.RENDERERS[launcher](description).values()))


def text(launcher, case):
    """Return the file to begin with of a case."""
    return written(launcher, CASES.get(case, HOSTILE))


def service(case):
    """Return the service of a compose file."""
    return yaml.safe_load(text("compose", case))["services"]["torch"]


def kept(launcher, case, path):
    """Return where a file is kept; its name says that it is not the repository's own code."""
    return GOLDEN / case / launcher / f"{path}.golden"


def all_kept(launcher, case):
    """Return where all files of a launcher are kept."""
    return [kept(launcher, case, path) for path in rendered(launcher, case)]


@pytest.mark.parametrize(("launcher", "case"), ALL)
def test_files_are_as_they_were_looked_at(launcher, case):
    """Each byte: a change of one is a change of what people start."""
    found = rendered(launcher, case)
    if UPDATE:
        for path, content in found.items():
            kept(launcher, case, path).parent.mkdir(parents=True, exist_ok=True)
            kept(launcher, case, path).write_text(content, encoding="utf-8")
    assert found == {path: kept(launcher, case, path).read_text(encoding="utf-8") for path in found}


def test_golden_files_are_of_what_there_is():
    """None is left of a launcher that is gone."""
    assert {path for path in GOLDEN.rglob("*") if path.is_file()} == set(chain.from_iterable(starmap(all_kept, ALL)))


@pytest.mark.parametrize(("launcher", "case"), ALL)
def test_each_file_names_the_image_by_digest(launcher, case):
    """A tag moves; what was kept is to start what it was written for."""
    assert all(DIGEST in content for content in rendered(launcher, case).values())


@pytest.mark.parametrize("launcher", get_args(Launcher))
def test_what_cannot_be_pulled_is_looked_for_here_only(launcher):
    """Else an engine would ask Docker's registry for somebody else's image of that name."""
    never = {"print": "--pull never", "compose": "pull_policy: never", "k8s": "imagePullPolicy: Never", "jupyterhub": '"never"'}
    assert never.get(launcher, "") in text(launcher, "local")


def test_job_gives_each_service_a_port_of_its_own():
    """A node may have several jobs, and containers there share its network."""
    job = written("slurm", replace(PUBLISHED, endpoints=endpoints("serve")))
    assert '--env "SERVE_PORT=$port"' in job
    assert "Without a command serve starts" in job


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("print", "--platform linux/arm64"),
        ("compose", "platform: linux/arm64"),
        ("devcontainer", "--platform=linux/arm64"),
        ("k8s", "kubernetes.io/arch: arm64"),
        ("jupyterhub", '"platform": "linux/arm64"'),
    ],
)
def test_platform_is_said_where_it_is_not_the_usual_one(launcher, words):
    """Engines and clusters would take their own; jobs get it by the digest."""
    assert words in written(launcher, replace(PUBLISHED, platform="linux/arm64"))
    assert words not in text(launcher, "published")


ENROOT_3 = re.compile(r"docker://([^#]+#)?[a-z\d/._-]+(:[a-zA-Z\d._:-]+)?")
"""What enroot 3 takes for an image (its ``docker.sh``): a digest stands where a tag does."""

CRITIC = ("shellcheck", "--exclude=SC2016")
"""It takes what is quoted so that the shell leaves it alone for a mistake."""


@pytest.mark.parametrize(("name", "words"), [("print", ["sh", "-n"]), ("print", [*CRITIC, "--shell=sh"]), ("slurm", ["bash", "-n"]), ("slurm", CRITIC)])
@pytest.mark.parametrize("case", [*CASES, "hostile"])
def test_scripts_are_sound(name, words, case, tmp_path):
    """The shell reads them, and its critic has nothing to say."""
    path = tmp_path / "script"
    path.write_text(text(name, case))
    assert subprocess.run([*words, path], capture_output=True, text=True, check=False).stdout == ""


@pytest.mark.parametrize("case", [*CASES, "hostile"])
def test_line_of_docker_is_one_command(case, tmp_path):
    """The shell hands docker the words that were meant, whatever is in them, and runs nothing else."""
    script(tmp_path / "docker", 'for word; do printf "%s\\0" "$word"; done')
    script(tmp_path / "mkdir", "")
    ended = subprocess.run(["/bin/sh", "-c", text("print", case)], env={"PATH": str(tmp_path), "PWD": "/here"}, cwd="/", capture_output=True, check=True)
    words, wanted = ended.stdout.decode().split("\0")[:-1], CASES.get(case, HOSTILE)
    source = wanted.workspace.replace("./", "//", 1) if wanted.workspace.startswith("./") else wanted.workspace
    assert words[0] == "run"
    assert words[-1] == wanted.image
    assert words[words.index("--name") + 1] == wanted.name
    assert source in " ".join(words).replace('""', '"')
    assert all(f"SSH_PUBLIC_KEY={key}" in words for key in wanted.authorized_keys)


NOTING = """\
for word; do printf "%s\\0" "$word"; done >>"$CALLS"; printf "\\n" >>"$CALLS"
env >"$CALLS.env"; cat "$CALLS.env" >>"$CALLS.every"
"""
"""A program that writes down its words and its variables."""


@pytest.fixture
def node(tmp_path):
    """Return a function that runs a job where a program writes down its words, and returns those of each call."""

    def run(case, program, *words, **job):
        script(tmp_path / program, NOTING)
        (tmp_path / "job").write_text(text("slurm", case))
        for tool in ("bash", "sh", "mkdir", "cat", "env"):
            if not (tmp_path / tool).exists():
                (tmp_path / tool).symlink_to(shutil.which(tool))
        given = {"PATH": tmp_path, "CALLS": tmp_path / "calls", "SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": tmp_path / "submitted", "HOME": tmp_path}
        given |= job
        subprocess.run([tmp_path / "bash", tmp_path / "job", *words], env={name: str(value) for name, value in given.items()}, check=True, capture_output=True)
        return [line.split("\0")[:-1] for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def test_batch_job_by_apptainer(node, tmp_path):
    """It takes an image by digest alone, the GPUs, the workspace where the job was submitted, and the command as it was given."""
    (words,) = node("published", "apptainer", "python", "train.py", "a b")
    assert words[:2] == ["run", "--nv"]
    assert words[words.index("--bind") + 1] == f"{tmp_path}/submitted/workspace:/workspace"
    assert words[words.index("--env") + 1] == "JUPYTER_PORT=20007"
    assert words[-4:] == [f"docker://{PUBLISHED.pinned}", "python", "train.py", "a b"]
    assert (tmp_path / "submitted" / "workspace").is_dir()


def test_batch_job_by_enroot(node, tmp_path):
    """It fetches the image once, by digest, runs in a root file system of the job's own, and removes that."""
    fetched, made, started, removed = node("published", "enroot", "python", "train.py", "a b")
    assert fetched[-1] == f"docker://{PUBLISHED.pinned.replace('/', '#', 1).replace('@', ':')}"
    assert ENROOT_3.fullmatch(fetched[-1])
    assert (tmp_path / "calls.every").read_text().splitlines().count("ENROOT_GZIP_PROGRAM=zstd") == 1  # layers of ours are zstd's
    assert made[-1] == fetched[2] == f"{tmp_path}/.cache/{DIGEST.removeprefix('sha256:')}.sqsh"
    own = f"{PUBLISHED.label}-7"
    assert started[-4:] == [own, "python", "train.py", "a b"]
    assert removed == ["remove", "--force", own]


def test_batch_job_keeps_to_its_gpus(node, tmp_path):
    """A node without limits of devices shows a container those of other jobs, too; nothing is said where Slurm says nothing."""
    node("published", "apptainer", CUDA_VISIBLE_DEVICES="2,3")
    assert "APPTAINERENV_CUDA_VISIBLE_DEVICES=2,3" in (tmp_path / "calls.env").read_text().splitlines()
    node("published", "apptainer")
    assert "CUDA_VISIBLE_DEVICES" not in (tmp_path / "calls.env").read_text()
    (tmp_path / "apptainer").unlink()
    *_, started, _ = node("published", "enroot", CUDA_VISIBLE_DEVICES="2,3")
    assert started[-3:] == ["--env", "CUDA_VISIBLE_DEVICES=2,3", f"{PUBLISHED.label}-7"]


def test_compose_takes_values_as_they_are():
    """A dollar would begin a variable."""
    assert service("hostile")["environment"]["SSH_PUBLIC_KEY"].replace("$$", "$") == HOSTILE.authorized_keys[0]
    assert service("hostile")["volumes"][0]["source"].replace("$$", "$") == HOSTILE.workspace


@pytest.mark.parametrize(("case", "devices"), [("published", {"count": "all"}), ("hostile", {"device_ids": ["0", "GPU-1"]}), ("local", None)])
def test_compose_asks_for_gpus(case, devices):
    """All, or those that were named; and for none where the image cannot use any."""
    asked = service(case).get("deploy")
    found = {name: value for name, value in asked["resources"]["reservations"]["devices"][0].items() if name in {"count", "device_ids"}} if asked else None
    assert found == devices


def test_dev_container_is_json():
    """Strictly, which more programs read than JSON with comments."""
    assert json.loads(text("devcontainer", "hostile"))["runArgs"][:2] == ["--gpus", '"device=0,GPU-1"']


def test_hub_builds_from_the_image_for_its_platform():
    """BuildKit would look for an image for the hub's own, and find none under a name that stands for another."""
    build = launchers.RENDERERS["jupyterhub"](replace(LOCAL, platform="linux/arm64"))["Dockerfile.hub"]
    assert "FROM --platform=linux/arm64 pytorch-cuda:" in build
    assert "FROM pytorch-cuda:" in rendered("jupyterhub", "local")["Dockerfile.hub"]


@pytest.mark.parametrize("case", [*CASES, "hostile"])
def test_profile_of_the_hub_is_python(case):
    """It sets nothing but what it configures."""
    module = ast.parse(text("jupyterhub", case))
    assert {type(node) for node in module.body} <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign}


def refusals(document):
    """Return what Kubernetes would say against a document, strictly."""
    kind = {"$ref": f"#/$defs/io.k8s.api.core.v1.{document['kind']}", "$defs": KUBERNETES["$defs"]}
    return [error.message for error in Draft202012Validator(kind).iter_errors(document)]


@pytest.mark.parametrize("case", [*CASES, "hostile"])
def test_kubernetes_knows_every_word_of_the_pod(case):
    """By its own definitions, and none that it does not know."""
    claims = [*yaml.safe_load_all(text("k8s", case))]
    assert [each["kind"] for each in claims] == ["PersistentVolumeClaim", "PersistentVolumeClaim", "Pod"]
    assert [*chain.from_iterable(map(refusals, claims))] == []


@pytest.mark.parametrize("wrong", [{"imagePulPolicy": "Never"}, {"ports": [{"containerPort": "8888"}]}, {"startupProbe": {"exec": "health"}}])
def test_kubernetes_would_refuse_what_is_wrong(wrong):
    """A word that it does not know, a number as text, a word for a list: the definitions see it."""
    (*_, pod) = yaml.safe_load_all(text("k8s", "published"))
    pod["spec"]["containers"][0] |= wrong
    assert refusals(pod)


def test_pod_is_admitted_where_policy_is_restricted():
    """The restricted Pod Security Standard: no root, no privilege, no capability, the runtime's seccomp; its volumes are claims and memory."""
    (*_, pod) = yaml.safe_load_all(text("k8s", "published"))
    whole, own = pod["spec"]["securityContext"], pod["spec"]["containers"][0]["securityContext"]
    assert whole["runAsNonRoot"]
    assert whole["runAsUser"] != 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert set(chain.from_iterable(pod["spec"]["volumes"])) == {"name", "persistentVolumeClaim", "emptyDir"}


def test_what_an_image_says_of_itself_is_only_text():
    """Whoever may push one could else write lines of scripts."""
    said = of_image(PUBLISHED.image, tag="x", title='a"""\n`id` $(id)\\ {b}', endpoints=(), cuda=False)
    assert shlex.split(said.title)
    assert not set('"\n`$\\{}') & set(said.title)
    texts = chain(*(render(said).values() for render in launchers.RENDERERS.values()))
    lines = chain.from_iterable(each.splitlines() for each in texts)
    assert not [line for line in lines if line.startswith("`")]


@pytest.mark.parametrize(
    ("words", "gpus", "option"),
    [
        ("all", Gpus(), "all"),
        ("2", Gpus(count=2), "2"),
        ("device=0", Gpus(count=0, devices=("0",)), "device=0"),
        ("device=0,GPU-1-2", Gpus(count=0, devices=("0", "GPU-1-2")), '"device=0,GPU-1-2"'),
        ("none", None, "None"),
        ("0", None, "None"),
    ],
)
def test_gpus_are_asked_for_as_docker_has_it(words, gpus, option):
    """By the same words; none is a choice, and no mistake."""
    assert Gpus.parse(words) == gpus
    assert str(gpus) == option


@pytest.mark.parametrize("words", ["none", "0"])
def test_no_gpu_is_a_choice(words):
    """And no mistake."""
    assert Gpus.parse(words) is None


@pytest.mark.parametrize("words", ["", "some", "-1", "00", "9" * 5000, "device=", "device=0;id", "all,1"])
def test_other_words_for_gpus_mean_nothing(words):
    """They are refused before anything is started."""
    with pytest.raises(NoGpuError, match="is no choice of GPUs"):
        Gpus.parse(words)


@pytest.mark.parametrize(
    ("image", "pullable", "pinned"),
    [
        (f"pytorch-cuda:v2.8@{DIGEST}", False, f"pytorch-cuda@{DIGEST}"),
        (f"team/pytorch-cuda:v2.8@{DIGEST}", False, f"team/pytorch-cuda@{DIGEST}"),
        (f"localhost:5000/a/b:v2.8@{DIGEST}", True, f"localhost:5000/a/b@{DIGEST}"),
        (f"registry.example/b@{DIGEST}", True, f"registry.example/b@{DIGEST}"),
    ],
)
def test_names_of_images(image, pullable, pinned):
    """Only what has a host can be pulled; a port is no tag."""
    described = replace(LOCAL, image=image)
    assert (described.is_pullable, described.pinned) == (pullable, pinned)


@pytest.mark.parametrize("workspace", ["./a,b", './my work/"x", $HOME', "./workspace"])
def test_line_of_docker_mounts_a_directory_below_this_one(workspace, tmp_path):
    """A comma separates the fields of ``--mount``; the shell says where it stands."""
    line = written("print", replace(LOCAL, workspace=workspace))
    code = 'docker() { for word; do printf "%s\\0" "$word"; done; }\n' + line
    words = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split("\0")
    (fields,) = csv.reader([words[words.index("--mount") + 1]])
    assert fields == ["type=bind", f"source={tmp_path}/{workspace[2:]}", "target=/workspace"]
    assert (tmp_path / workspace).is_dir()


@pytest.mark.parametrize("launcher", ["print", "compose"])
def test_address_of_the_log_is_corrected(launcher):
    """The log knows the ports of the container alone."""
    (jupyter,) = endpoints("jupyter")
    assert "port 8895 instead of 8888: docker" in written(launcher, replace(LOCAL, endpoints=(replace(jupyter, published=8895),)))
    assert "instead of" not in text(launcher, "local")


@pytest.mark.parametrize("launcher", ["print", "compose"])
def test_ports_of_an_address_of_ipv6(launcher):
    """Engines read it in brackets."""
    assert "[::1]:8888:8888" in written(launcher, replace(LOCAL, address="::1"))


@pytest.mark.parametrize("launcher", ["print", "compose"])
def test_root_hands_the_workspace_over(launcher):
    """Else the container's user could not write to what root has made."""
    assert "mkdir -p /srv/x && chown 1234 /srv/x" in written(launcher, replace(LOCAL, workspace="/srv/x", is_handed_over=True))
    assert "chown" not in text(launcher, "local")


def test_line_for_anybody_runs_as_who_pastes_it():
    """The workspace is theirs: another number could not write to it."""
    assert '  --user "$(id -u):0" \\\n' in text("print", "anybody")
    assert "--user 1000" not in text("print", "anybody")


def test_compose_file_for_anybody_runs_as_who_starts_it():
    """Who starts it tells Compose, which knows of no user; 1000, who is the only user of many machines, has nothing to tell."""
    assert service("anybody")["user"] == "${HOST_UID:-1000}:0"
    assert "&& HOST_UID=$(id -u) docker compose up" in text("compose", "anybody")
    assert "HOST_UID" not in text("compose", "published")
