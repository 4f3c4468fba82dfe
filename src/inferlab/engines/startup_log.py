"""What a vLLM start-up log says: how far it got, why it failed, what the engine found out.

The patterns follow the messages of vLLM 0.32 (`vllm/v1/core/kv_cache_utils.py`, `vllm/v1/worker/`,
`vllm/v1/engine/core.py`, `vllm/config/model.py`), of huggingface_hub and of CUDA.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PHASES = (
    ("non-default args", "读取配置"),
    ("Initializing a V1 LLM engine", "启动引擎进程"),
    ("Starting to load model", "加载权重"),
    ("Time spent downloading weights", "加载权重"),
    ("Dynamo bytecode transform", "编译（torch.compile）"),
    ("Warming up model for the compilation", "编译（torch.compile）"),
    ("KV cache size:", "分配 KV cache"),
    ("Capturing CUDA graphs", "捕获 CUDA graph"),
    ("init engine (profile", "启动 API 服务"),
    ("Application startup complete", "就绪"),
)


@dataclass(frozen=True)
class Cause:
    """Why an engine did not start, and what the reader can do; both in one short Chinese phrase."""

    cause: str
    remedy: str


@dataclass(frozen=True)
class StartupReport:
    """The engine's own figures from its start-up log; None where the log does not say.

    Attributes:
        kv_cache_tokens: tokens that the KV cache holds ("KV cache size").
        max_model_len: the request length that `max_concurrency` is for, in tokens.
        max_concurrency: requests of `max_model_len` tokens that fit at once.
        model_memory_gib: memory that the loaded weights take (GPU only), in GiB.
        available_kv_cache_gib: memory given to the KV cache, in GiB.
        weights_load_s, compile_s, engine_init_s: seconds for loading the weights, torch.compile,
            and profiling + KV cache + warm-up together.
    """

    kv_cache_tokens: int | None = None
    max_model_len: int | None = None
    max_concurrency: float | None = None
    model_memory_gib: float | None = None
    available_kv_cache_gib: float | None = None
    weights_load_s: float | None = None
    compile_s: float | None = None
    engine_init_s: float | None = None


_REPORT_PATTERNS = {
    "kv_cache_tokens": r"KV cache size: ([\d,]+) tokens",
    "max_model_len": r"Maximum concurrency for ([\d,]+) tokens per request",
    "max_concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "model_memory_gib": r"Model loading took ([\d.]+) GiB",
    "available_kv_cache_gib": r"(?:Available KV cache memory: |(?:Explicitly|Auto) set \()([\d.]+)",
    "weights_load_s": r"Loading weights took ([\d.]+) seconds",
    "compile_s": r"torch\.compile took ([\d.]+) s in total",
    "engine_init_s": r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s",
}

_IN_YAML = "在 {config} 中"

_ERROR = re.compile(r"^.*?((?:[\w.]+(?:Error|Exception): |\berror: ))")
_NOT_THE_ROOT = re.compile(
    r"\b(?:INFO|WARNING) |Engine core initialization failed|WorkerProc initialization failed"
    r"|EngineDeadError"
)
_WORKER_VANISHED = re.compile(r"WorkerProc initialization failed|Failed core proc\(s\): \{'.*-9")

# vLLM's scheduler waits without a limit for this thread, which has ended.
_HANDSHAKE_PORT_TAKEN = (
    r"in thread nixl_handshake_listener[\s\S]*?"
    r"Address already in use \(addr='tcp://(?P<address>[^']+)'\)"
)

# Most specific first: the first pattern that is found anywhere in the log is the cause.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"unrecognized arguments: (?P<flag>--\S+)",
        "引擎配置里有 vLLM 不认识的参数 {flag}",
        "在 {config} 中改正或删除它",
    ),
    (
        r"argument (?P<flag>--[^\s:/]+)[^:]*: invalid (?P<why>.+)",
        "引擎配置中 {flag} 的值不对（{why}）",
        "在 {config} 中改正它",
    ),
    (
        r"Free memory on device .*?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less "
        r"than desired GPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "显存只剩 {free} GiB（共 {total} GiB），gpu-memory-utilization={share} 需要 {wanted} GiB",
        f"停掉占用显存的其他程序（nvidia-smi 可见），或{_IN_YAML}调低 gpu-memory-utilization",
    ),
    (
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is "
        r"less than desired CPU memory utilization \((?P<share>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "内存只剩 {free} GiB（共 {total} GiB），gpu-memory-utilization={share} 需要 {wanted} GiB",
        f"关闭其他程序，或{_IN_YAML}调低 kv-cache-memory-bytes / gpu-memory-utilization",
    ),
    (
        r"Available memory on node \d+ \((?P<free>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is "
        r"less than requested memory for kv \((?P<wanted>[\d.]+)",
        "内存只剩 {free} GiB，放不下 {wanted} GiB 的 KV cache",
        f"关闭其他程序，或{_IN_YAML}调低 kv-cache-memory-bytes",
    ),
    (
        r"To serve at least one request with the model's max seq len \((?P<length>\d+)\), "
        r"\((?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the available KV "
        r"cache memory \((?P<available>[\d.]+) GiB\)",
        "KV cache 只有 {available} GiB，一个 {length} token 的请求就要 {needed} GiB",
        f"{_IN_YAML}调低 max-model-len，或给 KV cache 更多内存，或换更小的模型",
    ),
    (
        r"No available memory for the cache blocks",
        "放下权重之后，没有内存留给 KV cache",
        f"换更小的模型（--model），或{_IN_YAML}调高 gpu-memory-utilization、调低 max-model-len",
    ),
    (
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived "
        r"max_model_len \(\w+=(?P<limit>\d+)",
        "max-model-len={asked} 超过模型支持的 {limit}",
        "在 {config} 中把 max-model-len 改为不超过 {limit}",
    ),
    (
        _HANDSHAKE_PORT_TAKEN,
        "NIXL 的握手端口 {address} 已被其他程序占用，引擎会一直等下去",
        "再启动一次；自己设了 VLLM_NIXL_SIDE_CHANNEL_PORT 的，换一个端口",
    ),
    (
        r"address already in use",
        "API 端口已被其他程序占用",
        "在 .env 中换一个 LAB_API_PORT，或停掉占用它的程序",
    ),
    (
        r"(?:driver on your system is too old|CUDA driver version is insufficient"
        r"|Error 80[34]: )(?:.*?found version (?P<version>\d+))?",
        "NVIDIA 驱动太旧，跑不了这一版 CUDA",
        "把驱动升级到 R{driver} 或更新；数据中心卡也可以试 VLLM_ENABLE_CUDA_COMPATIBILITY=1",
    ),
    (
        r"(?:gated repo|GatedRepoError|Access to model .* is restricted)",
        "模型需要授权（gated repo）",
        "在模型主页申请访问，把令牌写入 .env 的 HF_TOKEN，或换一个公开模型（--model）",
    ),
    (
        r"(?:outgoing traffic has been disabled|OfflineModeIsEnabled)",
        "处于离线模式（HF_HUB_OFFLINE=1），而模型不在本地",
        "取消 HF_HUB_OFFLINE，或先把模型下载到本地并用 --model 指向它",
    ),
    (
        r"(?:Repository Not Found|RepositoryNotFoundError|is not a valid model identifier"
        r"|Repo id must be in the form|Invalid repository ID or local directory)",
        "没有这个模型（名字不对，或没有访问权限）",
        "检查 LAB_MODEL / --model 的写法；私有模型需要 HF_TOKEN",
    ),
    (
        r"(?:No space left on device|Errno 28|not enough free disk space)",
        "磁盘已满",
        "清理磁盘，或用 LAB_MODEL_CACHE 把模型放到别的盘",
    ),
    (
        r"(?:couldn't connect to|Max retries exceeded|Name or service not known"
        r"|Temporary failure in name resolution|ConnectTimeout|ConnectError|Network is unreachable"
        r"|LocalEntryNotFoundError)",
        "下载不了模型：连不上模型站点",
        "在 .env 中设置 HF_ENDPOINT（镜像）或 VLLM_USE_MODELSCOPE=1，或用 --model 指向本地模型",
    ),
    (
        r"(?:CUDA out of memory|torch\.OutOfMemoryError|CUDA error: out of memory)",
        "显存不足（CUDA out of memory）",
        f"换更小的模型（--model），或{_IN_YAML}调低 max-num-seqs / gpu-memory-utilization",
    ),
    (
        r"(?:No available shared memory broadcast block|Error while creating shared memory"
        r"|Insufficient space in /dev/shm)",
        "共享内存（/dev/shm）太小，进程间通信失败",
        "容器里加大 /dev/shm：docker run --shm-size=2g 或 --ipc=host，Compose 用 shm_size",
    ),
    (
        r"(?:No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver)",
        "引擎看不到 GPU",
        "运行 nvidia-smi 检查驱动；没有 GPU 时用 ./lab up … --engine cpu",
    ),
    (
        r"GLIBC_(?P<version>[\d.]+)' not found",
        "系统的 glibc 太旧（引擎需要 {version}）",
        "换较新的发行版，或用 Docker：./lab up … --docker",
    ),
    (
        r"Illegal instruction",
        "CPU 缺少引擎需要的指令集（至少 AVX2）",
        "换一台较新的 x86_64 机器，或使用 GPU",
    ),
)


def phase(*logs: str) -> str:
    """The last start-up phase that an engine's log has reached, in Chinese.

    Of several engines, that of the one which is least far; a log that names none does not count (a
    router's).
    """
    reached = [number for number in map(_phases_reached, logs) if number]
    return _PHASES[min(reached) - 1][1] if reached else "启动 Python"


def _phases_reached(log: str) -> int:
    return max(
        (number for number, (marker, _) in enumerate(_PHASES, 1) if marker in log), default=0
    )


def waits_for_ever(log: str) -> bool:
    """Whether the engine still runs, but will never answer."""
    return re.search(_HANDSHAKE_PORT_TAKEN, log, re.IGNORECASE) is not None


def report(log: str) -> StartupReport:
    """Read the engine's own start-up figures out of its log."""
    found = {name: _first_number(pattern, log) for name, pattern in _REPORT_PATTERNS.items()}
    tokens, length = found.pop("kv_cache_tokens"), found.pop("max_model_len")
    return StartupReport(
        kv_cache_tokens=None if tokens is None else int(tokens),
        max_model_len=None if length is None else int(length),
        **found,
    )


def report_from_metrics(metrics: str) -> StartupReport:
    """The same from `/metrics` (`vllm:cache_config_info`), for where the log cannot be read.

    Gives `kv_cache_tokens`, `max_concurrency` and the `max_model_len` that follows from them.
    """
    tokens = _first_number(r'kv_cache_size_tokens="([\d.]+)"', metrics)
    concurrency = _first_number(r'kv_cache_max_concurrency="([\d.]+)"', metrics)
    if not tokens or not concurrency:
        return StartupReport()
    return StartupReport(
        kv_cache_tokens=int(tokens),
        max_concurrency=concurrency,
        max_model_len=round(tokens / concurrency),
    )


def cause_of_failure(
    log: str, *, exit_code: int | None, config: str = "引擎配置", driver: str = "580"
) -> Cause:
    """Why the engine ended or hung, from its log; the root error line when no rule knows it.

    Args:
        log: the whole start-up log.
        exit_code: what the process ended with; negative for a signal, None while it still runs.
        config: the engine's YAML as the reader knows it, for the remedy.
        driver: the driver branch that the pinned engine needs.
    """
    for pattern, cause, remedy in _CAUSES:
        if match := re.search(pattern, log, re.IGNORECASE):
            values = {**match.groupdict(default=""), "driver": driver, "config": config}
            return Cause(_fill(cause, values), _fill(remedy, values))
    root_error = root_error_line(log.splitlines())
    if exit_code in (-9, 137) or (not root_error and _WORKER_VANISHED.search(log)):
        return Cause(
            "引擎进程被强制结束（SIGKILL），通常是内存不足被系统杀掉（OOM）",
            f"关闭其他程序腾出内存，或在 {config} 中调低 kv-cache-memory-bytes；用 dmesg 确认",
        )
    ended = "没有响应" if exit_code is None else f"退出（exit code {exit_code}）"
    return Cause(f"引擎{ended}" + (f"：{root_error}" if root_error else ""), "查看日志全文")


def root_error_line(lines: Iterable[str]) -> str:
    """The last line that names an exception, without vLLM's prefix; "" if there is none.

    vLLM's outer processes repeat that an inner one failed; those lines are passed over.
    """
    errors = [line for line in lines if _ERROR.search(line) and not _NOT_THE_ROOT.search(line)]
    if not errors:
        return ""
    return _ERROR.sub(r"\1", errors[-1]).strip()[:200]


def read(path: Path) -> str:
    """The log's text so far; empty when the engine has not opened it yet."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _first_number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return float(match[1].replace(",", "")) if match else None


def _fill(template: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template
