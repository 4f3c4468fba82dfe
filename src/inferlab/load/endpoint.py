"""Where requests go: address, model, interface, key, timeouts; and the bytes of one request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from inferlab.errors import UsageError
from inferlab.load.samples import RequestSpec

Api = Literal["completions", "chat"]
_PATHS = {"completions": "/completions", "chat": "/chat/completions"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server.

    Args:
        url: base address, with or without `/v1`.
        model: name to ask for; the labs serve every model as `lab`.
        api: `completions` (text or token ids) or `chat`.
        api_key: sent as a bearer token; never shown or recorded.
        timeout_s: longest time for one request, from sending to the stream's end.
        connect_timeout_s: longest time to open a connection.
        continuous_usage: ask for the token count with every chunk; `check_endpoint` turns it off
            for servers that refuse it.
        headers: further request headers.
    """

    url: str = "http://127.0.0.1:8000"
    model: str = "lab"
    api: Api = "completions"
    api_key: str = field(default="", repr=False)
    timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    continuous_usage: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> tuple[str, int, bool]:
        """Host, port and whether TLS is used.

        Raises:
            UsageError: the address is not http:// or https:// with a host.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"端点地址 {self.url!r} 不完整", remedy="写成 http://127.0.0.1:8000 这样的形式"
            )
        tls = parts.scheme == "https"
        return parts.hostname, port or (443 if tls else 80), tls

    @property
    def base_path(self) -> str:
        """Path of the API's root, ending in `/v1` unless the address names another version."""
        path = urlsplit(self.url).path.rstrip("/")
        for tail in ("/chat/completions", "/completions"):
            path = path.removesuffix(tail)
        last = path.rpartition("/")[2]
        versioned = last.startswith("v") and last[1:].isdigit()
        return path if versioned else f"{path}/v1"

    def request(self, spec: RequestSpec) -> bytes:
        """The whole HTTP request for one spec, ready to be written."""
        body = json.dumps(self.body(spec), separators=(",", ":")).encode()
        return self._head("POST", self.base_path + _PATHS[self.api], len(body)) + body

    def models_request(self) -> bytes:
        """The HTTP request that lists the served models."""
        return self._head("GET", self.base_path + "/models", 0)

    def body(self, spec: RequestSpec) -> dict[str, Any]:
        """The JSON body for one spec.

        Raises:
            UsageError: token ids for the chat interface, or messages for completions.
        """
        options: dict[str, bool] = {"include_usage": True}
        if self.continuous_usage:
            options["continuous_usage_stats"] = True
        body: dict[str, Any] = {"model": self.model, **_prompt(self.api, spec)}
        body |= {"max_tokens": spec.max_tokens, "temperature": spec.temperature}
        if spec.min_tokens is not None:
            body["min_tokens"] = spec.min_tokens
        if spec.ignore_eos:
            body["ignore_eos"] = True
        return body | {"stream": True, "stream_options": options, **spec.extra}

    def _head(self, method: str, path: str, length: int) -> bytes:
        host, port, tls = self.address
        name = f"[{host}]" if ":" in host else host
        shown = name if port == (443 if tls else 80) else f"{name}:{port}"
        headers = {"Host": shown, "User-Agent": "inferlab", "Accept": "text/event-stream"}
        if method == "POST":
            headers |= {"Content-Type": "application/json", "Content-Length": str(length)}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{key}: {value}" for key, value in (headers | dict(self.headers)).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _prompt(api: Api, spec: RequestSpec) -> dict[str, Any]:
    prompt = spec.prompt
    if isinstance(prompt, str):
        text_as_chat = {"messages": [{"role": "user", "content": prompt}]}
        return {"prompt": prompt} if api == "completions" else text_as_chat
    items = list(prompt)
    are_ids = all(isinstance(item, int) for item in items)
    if are_ids != (api == "completions"):
        kind = "token id 列表" if are_ids else "messages"
        raise UsageError(f"{api} 接口不接受 {kind} 形式的 prompt", remedy="换一种接口或换成文本")
    return {"prompt": items} if are_ids else {"messages": [dict(m) for m in items]}  # type: ignore[arg-type]
