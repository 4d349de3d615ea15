# PyTorch 2.13.0 with no CUDA on debian12, flavour jupyter. Its address: docker logs 'it'"'"'s mine'
mkdir -p '/home/ada/my work, $HOME'
docker run --detach --name 'it'"'"'s mine' \
  --pull never \
  --shm-size 512m --ulimit memlock=-1 --ulimit stack=67108864 \
  --user 1234:0 \
  --publish 127.0.0.1:8888:8888 \
  --mount 'type=bind,"source=/home/ada/my work, $HOME",target=/workspace' \
  --mount 'type=volume,source=it'"'"'s mine-home,target=/home/dev' \
  pytorch-cuda:2.13-cpu-jupyter@sha256:c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee1234
