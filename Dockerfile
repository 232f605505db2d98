# The image of workers and of the jobs that they start (docs/cluster.md):
#
#     docker build --target cpu  -t align:cpu .
#     docker build --target cuda -t align:cuda .
#
# The store is a volume at /store.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PREFECT_HOME=/tmp/prefect PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 \
    ALIGN_STORE=/store HF_HOME=/store/cache/huggingface
WORKDIR /opt/align
VOLUME /store

# What is installed, and no more.
FROM base AS project
COPY pyproject.toml constraints.txt README.md LICENSE prefect.yaml ./
COPY align align
COPY flows flows
COPY tasks tasks
COPY storage storage
COPY quickstart quickstart
COPY recipes recipes

FROM project AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install -c constraints.txt --index-url "$TORCH_INDEX" torch \
 && pip install -c constraints.txt -e '.[docker,kubernetes,tracking]'
CMD ["prefect", "worker", "start", "--pool", "align-cpu"]

# torch brings CUDA's libraries; the host gives the driver, by NVIDIA's container toolkit. Triton calls a C compiler.
FROM project AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && pip install -c constraints.txt -e '.[docker,kubernetes,tracking]'
CMD ["prefect", "worker", "start", "--pool", "align-gpu", "--limit", "1"]
