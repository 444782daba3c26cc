# The command `detectron-gn` in a container, without anything of this checkout but what is installed:
#
#     docker build -t detectron-gn .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" detectron-gn demo
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" detectron-gn detect model_final.pkl photo.jpg --out out
#
# For NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t detectron-gn . and run with --gpus all.

# A mirror, or one image for ever: --build-arg BASE=python:3.13-slim-bookworm@sha256:...
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM ${BASE}
# torch for CPUs; pip's own comes with CUDA, which is 4.6 GB more.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /
# Whoever --user names may write to the cache, so everybody can: there is one user in a container. Containers of several
# people take volumes of their own for it.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /constraints.txt \
        "$(echo /wheels/*.whl)[export,plots]" && \
    useradd --uid 1000 --create-home user && \
    mkdir --mode=1777 /cache
# Downloads, kept with -v NAME:/cache; matplotlib's own files; and threads that wait without keeping a core busy, which
# the container may not have (docs/deployment.md).
ENV DETECTRON_GN_CACHE=/cache MPLCONFIGDIR=/tmp OMP_WAIT_POLICY=PASSIVE
WORKDIR /data
# For whom --user is forgotten: not root.
USER 1000:1000
ENTRYPOINT ["detectron-gn"]
CMD ["--help"]
