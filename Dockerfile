# The code of a commit with the exact versions of constraints.txt, for launch/submit.py cluster=kubernetes:
#   docker build --build-arg REVISION=$(git rev-parse HEAD) --tag registry/mythos:TAG .
# The base is Python alone: torch's wheels bring CUDA, cuDNN and NCCL in the versions they were built against, and the
# host brings the driver. An nvidia/cuda image would carry a second copy of them that nothing loads.
FROM python:3.11.14-slim-bookworm

# Triton compiles a launcher for each kernel at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mythos
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# What is large and seldom changes: everything that the package depends on.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; \
print('\n'.join([*p['dependencies'], *e['deepspeed'], *e['s3'], *e['trackers']]))" > requirements.txt \
    && DS_BUILD_OPS=0 pip install --constraint constraints.txt --requirement requirements.txt

# What is small and changes with each commit.
COPY README.md LICENSE ./
COPY conf conf
COPY data_pipelines data_pipelines
COPY mythos mythos
RUN pip install --no-deps . \
    && useradd --uid 1000 --create-home mythos
USER 1000:1000
WORKDIR /home/mythos

ARG REVISION=unknown
LABEL org.opencontainers.image.revision=$REVISION

# Tokens (WANDB_API_KEY, HF_TOKEN) come from the environment when a container starts, never from a layer.
ENTRYPOINT ["mythos"]
CMD ["--help"]
