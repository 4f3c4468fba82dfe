# JupyterLab with the book's library, on top of the engine's own image: the notebooks measure matrix products and
# copies with torch, and that image holds the right torch already, in layers that are on the disk anyway.
# Built from the repository root.
ARG ENGINE_IMAGE
FROM ${ENGINE_IMAGE}
ARG PIP_INDEX_URL=
COPY docker/certs/ /usr/local/share/ca-certificates/lab/
COPY requirements.txt /opt/lab/requirements.txt
# /opt/lab has the lab's locked packages first and the engine's (torch) after them. A .pth file instead of
# --system-site-packages, which would skip the engine's packages where they live in a virtual environment.
RUN set -eu; \
    unset LD_PRELOAD; \
    update-ca-certificates >/dev/null 2>&1; \
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt; \
    [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    engine=$(python3 -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))'); \
    python3 -m venv /opt/lab; \
    grep '^uv==' /opt/lab/requirements.txt | /opt/lab/bin/pip install -q --no-cache-dir -r /dev/stdin; \
    /opt/lab/bin/uv pip install -q --no-cache --compile-bytecode -p /opt/lab \
        ${PIP_INDEX_URL:+--index-url "$PIP_INDEX_URL"} -r /opt/lab/requirements.txt; \
    echo "$engine" >"$(/opt/lab/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/engine.pth"
# The library, editable: compose mounts the reader's clone over /workspace, and the same paths then lead there.
COPY pyproject.toml README.md /workspace/
COPY src /workspace/src
RUN set -eu; \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt; \
    [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    /opt/lab/bin/pip install -q --no-cache-dir --no-deps -e /workspace
COPY docker/lab-entrypoint.sh /usr/local/bin/lab-entrypoint
ENV PATH=/opt/lab/bin:$PATH \
    INFERLAB_ROOT=/workspace
WORKDIR /workspace
EXPOSE 8888
ENTRYPOINT ["lab-entrypoint"]
