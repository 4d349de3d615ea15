"""A container as a batch job of Slurm; Apptainer or enroot runs it, whichever a node has."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from torchstrata.containers.description import ContainerDescription
from torchstrata.image.runtime import WORKSPACE

FILE = "job.sbatch"

JOB = """\
#!/bin/bash
#SBATCH --job-name={label}
#SBATCH --nodes=1
#SBATCH --ntasks=1
{gpus}#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log
# {title}.
# Start: sbatch {file} python train.py{services}
set -euo pipefail
image={image}
workspace={directory}
mkdir -p "$workspace"
{port}{chosen}if command -v apptainer >/dev/null; then
    exec apptainer run {apptainer}{setting} "docker://$image" "$@"
elif command -v enroot >/dev/null; then
    file=${{ENROOT_CACHE_PATH:-$HOME/.cache}}/${{image##*:}}.sqsh
    mkdir -p "${{file%/*}}"
    uri=${{image/\\//#}}
    # enroot 3 has no @ before a digest, and unpacks layers as gzip, which they are not, unless it is told another program
    [ -e "$file" ] || ENROOT_GZIP_PROGRAM=zstd enroot import --output "$file" "docker://${{uri/@/:}}"
    enroot create --force --name "{label}-$SLURM_JOB_ID" "$file"
    trap 'enroot remove --force "{label}-$SLURM_JOB_ID"' EXIT
    enroot start --rw --mount "$workspace:{workspace}"{setting}{visible} "{label}-$SLURM_JOB_ID" "$@"
else
    echo "this node has neither apptainer nor enroot" >&2
    exit 1
fi
"""

SERVICES = """
# Without a command {name} starts; the log has its address. From outside: ssh -L {published}:NODE:PORT LOGIN-NODE"""
PORT = "port=$((20000 + SLURM_JOB_ID % 20000)) # a node may have several jobs\n"
CHOSEN = """\
if [ -n "${CUDA_VISIBLE_DEVICES-}" ]; then # the GPUs of this job, which a clean environment would not say
    export APPTAINERENV_CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES
fi
"""
VISIBLE = ' ${CUDA_VISIBLE_DEVICES:+--env "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}'


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the job's script."""
    web = next((endpoint for endpoint in description.endpoints if endpoint.scheme), None)
    nv = "--nv " if description.gpus else ""
    job = JOB.format(
        label=description.label,
        title=description.title,
        file=FILE,
        image=shlex.quote(description.pinned),
        directory=description.workspace_below("SLURM_SUBMIT_DIR"),
        workspace=WORKSPACE,
        gpus=f"#SBATCH --gpus={description.gpus.amount}\n" if description.gpus else "",
        apptainer=f'{nv}--cleanenv --no-home --bind "$workspace:{WORKSPACE}" --pwd {WORKSPACE}',
        chosen=CHOSEN if description.gpus else "",
        visible=VISIBLE if description.gpus else "",
        services=SERVICES.format(name=web.name, published=web.published) if web else "",
        port=PORT if web else "",
        setting=f' --env "{web.variable}=$port"' if web else "",
    )
    return {FILE: job}
