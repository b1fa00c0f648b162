# Dockerfile - two images from one file, neither of which runs as root:
#   docker build -t inferd .                      the CPU image
#   docker build -t inferd:cuda --target cuda .   on the CUDA runtime
#   docker run -p 8000:8000 -v /path/to/model:/model:ro inferd serve /model
#   docker run -p 8000:8000 -v inferd-cache:/var/cache/inferd inferd serve ORG/NAME
# Options can also come as INFERD_... variables. The port has to (INFERD_PORT) where it is not 8000,
# since the health check reads it there.
ARG CPU_BASE=debian:12-slim
ARG CUDA_BUILD=nvidia/cuda:12.8.1-devel-ubuntu24.04
ARG CUDA_BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04

# --- build: the same steps on either base ---
FROM ${CPU_BASE} AS build-cpu
WORKDIR /src
COPY setup.sh ./
RUN ./setup.sh build && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make -j"$(nproc)" all && make install DESTDIR=/stage PREFIX=/usr

FROM ${CUDA_BUILD} AS build-cuda
WORKDIR /src
COPY setup.sh ./
RUN ./setup.sh build && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make -j"$(nproc)" all && make install DESTDIR=/stage PREFIX=/usr

# --- run: libraries, the binary, a user of its own ---
FROM ${CUDA_BASE} AS cuda
COPY setup.sh /tmp/setup.sh
RUN /tmp/setup.sh runtime && rm -rf /var/lib/apt/lists/* /tmp/setup.sh \
    && groupadd --gid 10001 inferd && useradd --uid 10001 --gid 10001 --no-create-home inferd \
    && install -d -o 10001 -g 10001 /var/cache/inferd
COPY --from=build-cuda /stage/usr /usr
ENV HF_HOME=/var/cache/inferd INFERD_PORT=8000
VOLUME /var/cache/inferd
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$INFERD_PORT && printf 'GET /health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r -t 4 _ code _ <&3 && [ \"$code\" = 200 ]"]
ENTRYPOINT ["/usr/bin/inferd"]
CMD ["--help"]

FROM ${CPU_BASE} AS cpu
COPY setup.sh /tmp/setup.sh
RUN /tmp/setup.sh runtime && rm -rf /var/lib/apt/lists/* /tmp/setup.sh \
    && groupadd --gid 10001 inferd && useradd --uid 10001 --gid 10001 --no-create-home inferd \
    && install -d -o 10001 -g 10001 /var/cache/inferd
COPY --from=build-cpu /stage/usr /usr
ENV HF_HOME=/var/cache/inferd INFERD_PORT=8000
VOLUME /var/cache/inferd
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$INFERD_PORT && printf 'GET /health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r -t 4 _ code _ <&3 && [ \"$code\" = 200 ]"]
ENTRYPOINT ["/usr/bin/inferd"]
CMD ["--help"]
