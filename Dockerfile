# syntax=docker/dockerfile:1.7
# Containers that hold a read-only bundle, never engines, and neither PyTorch nor Model Optimizer: engines are
# built on the first start, on the machine that runs them, into a store on a volume, and then served.
#
#   docker build --target cpu    --build-arg BUNDLE=bundle -t ccr-deploy:cpu .
#   docker build --target server --build-arg BUNDLE=bundle -t ccr-deploy:tensorrt10 .
#   docker build --target server --build-arg BUNDLE=bundle -t ccr-deploy:tensorrt11 \
#                --build-arg SERVER_IMAGE=nvcr.io/nvidia/tensorrt:26.06-py3 .
#   docker build --target jetson --build-arg BUNDLE=bundle -t ccr-deploy:jetpack6 .
#   docker build --target jetson --build-arg BUNDLE=bundle -t ccr-deploy:jetpack7 \
#                --build-arg JETSON_IMAGE=nvcr.io/nvidia/tensorrt:25.08-py3 .
#
# A digest is given beside its image: --build-arg SERVER_DIGEST=@sha256:…

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=""
ARG SERVER_IMAGE=nvcr.io/nvidia/tensorrt:25.08-py3
ARG SERVER_DIGEST=""
ARG JETSON_IMAGE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime
ARG JETSON_DIGEST=""

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY engines engines
COPY ccr_deploy ccr_deploy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS cpu
COPY deploy/container/install.sh deploy/container/start.sh /usr/local/bin/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels install.sh /wheels cpu,openvino,serve
ARG BUNDLE=bundle
COPY --chmod=0755 ${BUNDLE} /bundle
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines \
    CCR_DEPLOY_TARGET=cpu-openvino
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=10m --interval=10s --timeout=3s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]

FROM ${SERVER_IMAGE}${SERVER_DIGEST} AS server
COPY deploy/container/install.sh deploy/container/start.sh /usr/local/bin/
# The image brings TensorRT and its Python package: engines are bound to that very version.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels install.sh /wheels tensorrt-system,serve
ARG BUNDLE=bundle
COPY --chmod=0755 ${BUNDLE} /bundle
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=30m --interval=10s --timeout=3s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]

FROM ${JETSON_IMAGE}${JETSON_DIGEST} AS jetson
COPY deploy/container/install.sh deploy/container/start.sh /usr/local/bin/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels install.sh /wheels tensorrt-system,serve
ARG BUNDLE=bundle
COPY --chmod=0755 ${BUNDLE} /bundle
ENV PATH=/opt/ccr-deploy/bin:${PATH} \
    CCR_DEPLOY_BUNDLE=/bundle \
    CCR_DEPLOY_ENGINES=/engines
USER 10001:10001
VOLUME /engines
EXPOSE 8080 9000
HEALTHCHECK --start-period=30m --interval=10s --timeout=3s CMD ["start.sh", "healthy"]
ENTRYPOINT ["start.sh"]
CMD ["serve"]
