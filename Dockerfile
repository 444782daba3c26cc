# The command `detectron-gn` in a container, without anything of this checkout but what is installed:
#
#     docker build -t detectron-gn .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" detectron-gn demo
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" detectron-gn detect model_final.pkl photo.jpg --out out
#
# For NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t detectron-gn . and run with --gpus all.

FROM python:3.13-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.13-slim
# torch for CPUs; pip's own comes with CUDA, which is some 3 GB more.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /constraints.txt \
        "$(echo /wheels/*.whl)[export,plots]" && \
    mkdir --mode=1777 /cache
# Downloads, kept with -v NAME:/cache; matplotlib's own files.
ENV DETECTRON_GN_CACHE=/cache MPLCONFIGDIR=/tmp
WORKDIR /data
ENTRYPOINT ["detectron-gn"]
CMD ["--help"]
