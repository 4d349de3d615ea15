# PyTorch 2.8.0 with CUDA 12.8 (for hosts of CUDA 12.1) on debian13, flavour ssh. Its address: docker logs torchstrata-2.8-cu121-ssh
mkdir -p "$PWD"/workspace
docker run --detach --name torchstrata-2.8-cu121-ssh \
  --gpus all \
  --shm-size 8g --ulimit memlock=-1 --ulimit stack=67108864 \
  --user 1000:0 \
  --publish 127.0.0.1:8888:8888 \
  --publish 127.0.0.1:2222:2222 \
  --env SSH_PORT=2222 \
  --env SSH_PUBLIC_KEY \
  --mount type=bind,source="$PWD"/workspace,target=/workspace \
  --mount type=volume,source=torchstrata-2.8-cu121-ssh-home,target=/home/dev \
  registry.example/team/pytorch-cuda:2.8-cu121-ssh@sha256:c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee1234
