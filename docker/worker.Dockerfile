# Runs the pipeline and, as its child processes, the models: `medgem-node start --role pipeline`. With torch. Not built by CI.
#   docker build -f docker/worker.Dockerfile -t medgem-node-worker .
# The index below has the small CPU wheel of torch; for a GPU build with --build-arg PIP_EXTRA_INDEX_URL=
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV OMP_WAIT_POLICY=PASSIVE

WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY conf conf
COPY models models
COPY medgem_node medgem_node
RUN python -m pip install --no-cache-dir '.[worker]' && rm -rf /src/*

RUN useradd --uid 10001 --create-home medgem && install -d -o medgem -m 0700 /data
USER medgem
WORKDIR /data
VOLUME /data
ENTRYPOINT ["medgem-node"]
CMD ["start", "--config", "/etc/medgem-node/node.toml", "--data", "/data", "--role", "pipeline"]
