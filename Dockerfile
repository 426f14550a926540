# syntax=docker/dockerfile:1.7
# Images with ccr-deploy and a read-only bundle, without engines, PyTorch and Model Optimizer. At the first start
# a container builds the engines on the machine that runs them, into a store on a volume, and then serves them.
#
# With Podman or Buildah, use `podman build --format docker …`: their default format has no health check.
#
#   docker build --target cpu    --build-arg BUNDLE=bundle -t ccr-deploy:cpu .
#   docker build --target server --build-arg BUNDLE=bundle -t ccr-deploy:tensorrt10 .
#   docker build --target server --build-arg BUNDLE=bundle -t ccr-deploy:tensorrt11 \
#                --build-arg SERVER_IMAGE=nvcr.io/nvidia/tensorrt:26.06-py3 .
#   docker build --target jetson --build-arg BUNDLE=bundle -t ccr-deploy:jetpack6 .
#   docker build --target jetson --build-arg BUNDLE=bundle -t ccr-deploy:jetpack7 \
#                --build-arg JETSON_IMAGE=nvcr.io/nvidia/tensorrt:25.08-py3 .
#
# A base's digest is part of its name, IMAGE@sha256:…, so that another base does not inherit it. It must be the
# digest of the index of all platforms:
#
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
#   skopeo inspect --raw docker://docker.io/library/python:3.11-slim-bookworm | sha256sum

# Python 3.11.16, of September 2026.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
# NVIDIA's images are not pinned by digest: pass IMAGE@sha256:… to pin them.
ARG SERVER_IMAGE=nvcr.io/nvidia/tensorrt:25.08-py3
ARG JETSON_IMAGE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY deploy/container deploy/container
RUN python3 -m venv /build && \
    /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r deploy/container/requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY engines engines
COPY ccr_deploy ccr_deploy
RUN /build/bin/python -m hatchling build -t wheel -d /wheels

# Readable for all users and writable for none, whatever the folder's modes are.
FROM ${PYTHON_IMAGE} AS bundle
ARG BUNDLE=bundle
COPY ${BUNDLE} /bundle
RUN chmod -R a=rX /bundle

FROM ${PYTHON_IMAGE} AS cpu-environment
COPY --from=wheel /wheels /wheels
COPY deploy/container/install.sh deploy/container/requirements-cpu.txt /container/
RUN sh /container/install.sh /wheels /container/requirements-cpu.txt

FROM ${PYTHON_IMAGE} AS cpu
COPY --from=cpu-environment /opt/ccr-deploy /opt/ccr-deploy
COPY --from=bundle /bundle /bundle
COPY --chmod=0555 deploy/container/start.sh /usr/local/bin/
RUN install -d -m 0700 -o 10001 -g 10001 /engines
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines \
    CCR_DEPLOY_TARGET=cpu-openvino \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=10m --interval=10s --timeout=5s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]

FROM ${SERVER_IMAGE} AS server-environment
COPY --from=wheel /wheels /wheels
COPY deploy/container/install.sh deploy/container/requirements-tensorrt.txt /container/
RUN sh /container/install.sh /wheels /container/requirements-tensorrt.txt

# The image provides TensorRT and its Python package; engines are bound to exactly this version.
FROM ${SERVER_IMAGE} AS server
COPY --from=server-environment /opt/ccr-deploy /opt/ccr-deploy
COPY --from=bundle /bundle /bundle
COPY --chmod=0555 deploy/container/start.sh /usr/local/bin/
RUN install -d -m 0700 -o 10001 -g 10001 /engines
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=30m --interval=10s --timeout=5s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]

FROM ${JETSON_IMAGE} AS jetson-environment
COPY --from=wheel /wheels /wheels
COPY deploy/container/install.sh deploy/container/requirements-tensorrt.txt /container/
RUN sh /container/install.sh /wheels /container/requirements-tensorrt.txt

FROM ${JETSON_IMAGE} AS jetson
COPY --from=jetson-environment /opt/ccr-deploy /opt/ccr-deploy
COPY --from=bundle /bundle /bundle
COPY --chmod=0555 deploy/container/start.sh /usr/local/bin/
RUN install -d -m 0700 -o 10001 -g 10001 /engines
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=30m --interval=10s --timeout=5s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]
