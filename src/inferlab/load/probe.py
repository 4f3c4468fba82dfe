"""One small request before a run, so that a wrong address, key or model gives one clear line."""

import asyncio
import json
from dataclasses import replace

from inferlab.errors import LabError
from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.samples import RequestSample, RequestSpec, Status

_UP = "引擎启动了吗？用 ./lab status 查看，或检查地址和端口"


async def check_endpoint(endpoint: Endpoint) -> Endpoint:
    """Tries the endpoint with a two-token request and gives it back as it has to be used.

    `continuous_usage` is turned off for a server that refuses the option.

    Raises:
        LabError: it cannot be used; the message says why and what to do.
    """
    client = Client(endpoint)
    try:
        sample = await client.send(RequestSpec("Hello", max_tokens=2))
        if _refuses_option(sample) and endpoint.continuous_usage:
            client.close()
            return await check_endpoint(replace(endpoint, continuous_usage=False))
        if sample.status is Status.CANCELLED:
            raise asyncio.CancelledError
        if not sample.ok:
            raise await _explained(client, sample)
    finally:
        client.close()
    return endpoint


def _refuses_option(sample: RequestSample) -> bool:
    bad = sample.error.startswith(("HTTP 400", "HTTP 422"))
    return bad and ("stream_options" in sample.error or "continuous_usage" in sample.error)


async def _explained(client: Client, sample: RequestSample) -> LabError:
    url, error = client.endpoint.url, sample.error
    if sample.status is Status.HTTP_ERROR:
        return await _http_error(client, error)
    match sample.status:
        case Status.CONNECT_ERROR:
            return LabError(f"连不上 {url}（{error}）", remedy=_UP)
        case Status.CUT:
            return LabError(f"{url} 中途断开连接（{error}）", remedy="看引擎日志，它可能已退出")
        case Status.TIMEOUT:
            return LabError(f"{url} 没有按时答完（{error}）", remedy="看引擎日志，或加大超时")
        case Status.BAD_RESPONSE:
            return LabError(f"{url} 的回答不是 HTTP（{error}）", remedy="检查端口和 http/https")
        case Status.NOT_STREAMING:
            return LabError(
                f"{url} 没有流式返回（{error}）", remedy="测量 TTFT 需要支持 stream 的端点"
            )
        case Status.NO_USAGE | Status.TRUNCATED:
            return LabError(
                f"{url} 的流没有给出 usage 或 [DONE]（{error}）",
                remedy="长度以服务端 usage 为准，请换用支持 stream_options.include_usage 的服务",
            )
    return LabError(f"{url} 返回错误（{error}）", remedy="看引擎日志")


async def _http_error(client: Client, error: str) -> LabError:
    url, code = client.endpoint.url, error[5:8]
    if code in ("401", "403"):
        return LabError(f"{url} 拒绝了 API key（{error}）", remedy="设置正确的 API key")
    if code != "404":
        return LabError(f"{url} 返回错误（{error}）", remedy="看引擎日志或修改请求参数")
    if models := await _models(client):
        if client.endpoint.model in models:
            return LabError(f"{url} 没有 {client.endpoint.api} 接口", remedy="换一种 api")
        return LabError(
            f"{url} 没有模型 {client.endpoint.model!r}", remedy=f"可用的模型：{'、'.join(models)}"
        )
    return LabError(f"{url} 不是 OpenAI 兼容的地址（{error}）", remedy="检查路径，通常以 /v1 结尾")


async def _models(client: Client) -> list[str]:
    try:
        response = await client.get_models()
        return [str(model["id"]) for model in json.loads(response.body)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
