#!/bin/sh
# Starts JupyterLab as the owner of the mounted clone, so that what a notebook writes belongs to the reader and not
# to root. Takes further JupyterLab options; the token comes in JUPYTER_TOKEN.
set -eu

: "${JUPYTER_TOKEN:?JUPYTER_TOKEN is empty: JupyterLab does not start without a token}"

uid=$(stat -c %u /workspace)
gid=$(stat -c %g /workspace)
export HOME="/tmp/home-$uid"
mkdir -p "$HOME"
chown "$uid:$gid" "$HOME"

exec setpriv --reuid "$uid" --regid "$gid" --clear-groups \
    jupyter lab --ip 0.0.0.0 --port 8888 --no-browser --allow-root \
    --ServerApp.root_dir=/workspace "$@"
