"""Who answers at an endpoint: engine, version, configuration, model; as far as it can be known."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from inferlab.engines import session
from inferlab.load.endpoint import Endpoint
from inferlab.records.schema import EngineInfo, Model
from inferlab.repository import lab_description, lab_dir, root

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_local(endpoint: Endpoint) -> bool:
    """Whether the server runs on this machine, so that its device is this machine's."""
    return endpoint.address[0] in _LOOPBACK


def public_address(endpoint: Endpoint) -> str:
    """A loopback address as it is, any other as `remote`: records are published."""
    host, port, _ = endpoint.address
    return f"{host}:{port}" if is_local(endpoint) else "remote"


def only_model(endpoint: Endpoint) -> str:
    """The served model's name when there is exactly one, else the endpoint's own."""
    served = _served(endpoint)
    return str(served[0]["id"]) if len(served) == 1 else endpoint.model


def describe_engine(endpoint: Endpoint) -> EngineInfo:
    """Name, version and configuration. Never fails: what is not told stays unknown."""
    config, source = _lab_config(endpoint)
    version = _json(endpoint, "/version").get("version")
    name = "vLLM" if version else "unknown"
    # The second is what older releases of SGLang have.
    for path in ("/server_info", "/get_server_info"):
        if not version and (info := _json(endpoint, path)):
            name, version = "SGLang", info.get("version")
            config, source = (config, source) if config else (_plain(info), path)
    return EngineInfo(name=name, version=version, endpoint=public_address(endpoint),
                      config=config, config_source=source)  # fmt: skip


def describe_model(endpoint: Endpoint, engine: EngineInfo) -> Model:
    """The model behind the name that was asked for.

    Weights are real when this clone's own lab loaded them from a folder or a hub, random with
    `load-format: dummy`, and unknown on any other server.
    """
    running = _running(endpoint)
    load_format = str(engine.config.get("load-format", ""))
    weights = "random" if load_format == "dummy" else "real" if running else "unknown"
    dtype = str(engine.config.get("dtype", "unknown"))
    name = running.model if running else source_of(endpoint)
    return Model(name=_bare(name), weights=weights, dtype=dtype)


def source_of(endpoint: Endpoint) -> str:
    """Folder or hub name of the model that the server loaded; the served name when unknown."""
    found = [each for each in _served(endpoint) if each.get("id") == endpoint.model]
    return str(found[0].get("root") or endpoint.model) if found else endpoint.model


def lab_of(endpoint: Endpoint) -> str:
    """The lab that runs at the endpoint; `bench` for any other server."""
    running = _running(endpoint)
    return running.lab if running else "bench"


def _running(endpoint: Endpoint) -> session.Session | None:
    found = session.load()
    local = is_local(endpoint) and found and endpoint.address[1] == found.api_port
    return found if local else None


def _lab_config(endpoint: Endpoint) -> tuple[dict[str, Any], str]:
    running = _running(endpoint)
    if not running:
        return {}, ""
    try:
        folder = lab_dir(running.lab)
        file = folder / lab_description(folder)["engine"][running.engine]
        return yaml.safe_load(file.read_text(encoding="utf-8")), str(file.relative_to(root()))
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return {}, ""


def _served(endpoint: Endpoint) -> list[dict[str, Any]]:
    found = _json(endpoint, endpoint.base_path + "/models").get("data")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _json(endpoint: Endpoint, path: str) -> dict[str, Any]:
    host, port, tls = endpoint.address
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"http{'s' if tls else ''}://{host}:{port}{path}")
    if endpoint.api_key:
        request.add_header("Authorization", f"Bearer {endpoint.api_key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            content = json.loads(answer.read())
    except (urllib.error.URLError, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """Settings that may be published: no keys, hosts or paths, and no command that has them."""
    hidden = ("key", "host", "path", "addr", "url", "dir", "token_file", "command")
    simple = {k: v for k, v in info.items() if isinstance(v, str | int | float | bool)}
    return {k: v for k, v in simple.items() if not any(word in k for word in hidden)}


def _bare(name: str) -> str:
    """A folder's own name (paths are private), a hub name as it is."""
    path = Path(name)
    return path.name if path.is_absolute() else name
