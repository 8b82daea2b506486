# Receives images: `medgem-node start --role receive`. No torch inside. Not built by CI.
#   docker build -f docker/node.Dockerfile -t medgem-node .
FROM python:3.11-slim-bookworm

WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY conf conf
COPY models models
COPY medgem_node medgem_node
RUN python -m pip install --no-cache-dir . && rm -rf /src/*

RUN useradd --uid 10001 --create-home medgem && install -d -o medgem -m 0700 /data
USER medgem
WORKDIR /data
VOLUME /data
EXPOSE 11112
ENTRYPOINT ["medgem-node"]
CMD ["start", "--config", "/etc/medgem-node/node.toml", "--data", "/data", "--role", "receive"]
