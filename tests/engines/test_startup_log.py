"""Reading vLLM's start-up logs; those in logs/ were written by vLLM 0.32.0 on a CPU, shortened."""

from pathlib import Path

import pytest

from inferlab.engines.startup_log import (
    StartupReport,
    cause_of_failure,
    phase,
    report,
    report_from_metrics,
    root_error_line,
    waits_for_ever,
)

LOGS = Path(__file__).parent / "logs"


def log(name: str) -> str:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8")


def test_the_report_holds_the_engines_own_figures():
    assert report(log("ready")) == StartupReport(
        kv_cache_tokens=131072,
        max_model_len=2048,
        max_concurrency=64.0,
        available_kv_cache_gib=0.5,
        weights_load_s=0.10,
        engine_init_s=1.51,
    )


def test_a_gpu_log_also_says_what_the_weights_and_the_compilation_took():
    text = """
    INFO [model_runner.py:425] Model loading took 15.27 GiB memory and 4.812345 seconds
    INFO [monitor.py:20] torch.compile took 48.91 s in total
    INFO [gpu_worker.py:433] Available KV cache memory: 107.22 GiB
    INFO [kv_cache_utils.py:2327] GPU KV cache size: 780,736 tokens, \
Maximum concurrency for 8,192 tokens per request: 95.30x
    """
    found = report(text)
    assert (found.model_memory_gib, found.compile_s) == (15.27, 48.91)
    assert found.available_kv_cache_gib == 107.22
    assert (found.kv_cache_tokens, found.max_concurrency) == (780_736, 95.30)


def test_metrics_give_the_same_capacity_where_the_log_cannot_be_read():
    metrics = (
        'vllm:cache_config_info{block_size="128",kv_cache_max_concurrency="64.0",'
        'kv_cache_memory_bytes="536870912",kv_cache_size_tokens="131072"} 1.0'
    )
    found = report_from_metrics(metrics)
    assert (found.kv_cache_tokens, found.max_model_len, found.max_concurrency) == (131072, 2048, 64)


def test_an_empty_log_reports_nothing():
    assert report("") == StartupReport()
    assert report_from_metrics("") == StartupReport()
    assert phase("") == "启动 Python"


def test_the_phase_is_the_last_one_reached():
    assert phase(log("ready")) == "就绪"
    assert phase(log("too_little_memory")) == "启动引擎进程"
    assert phase(log("kv_cache_too_small")) == "加载权重"
    up_to_kv_cache = log("ready").partition("init engine")[0]
    assert phase(up_to_kv_cache) == "分配 KV cache"


def test_of_several_engines_the_one_that_is_least_far_counts():
    up_to_kv_cache = log("ready").partition("init engine")[0]
    assert phase(log("ready"), up_to_kv_cache) == "分配 KV cache"
    assert phase(up_to_kv_cache, log("ready")) == "分配 KV cache"
    assert phase(log("ready"), log("ready")) == "就绪"
    assert phase(log("ready"), '{"listening": "http://127.0.0.1:8000"}') == "就绪", "the router's"


def test_a_start_that_failed_before_does_not_hold_an_engine_back():
    assert phase(log("too_little_memory") + log("ready")) == "就绪"


@pytest.mark.parametrize(
    ("name", "cause", "remedy"),
    [
        ("unknown_flag", "--max-num-seqss", "e.yaml"),
        ("wrong_type", "--max-model-len 的值不对", "e.yaml"),
        ("length_over_model", "max-model-len=32768 超过模型支持的 2048", "不超过 2048"),
        ("offline", "HF_HUB_OFFLINE=1", "--model"),
        ("no_network", "连不上模型站点", "HF_ENDPOINT"),
        ("no_such_folder", "没有这个模型", "LAB_MODEL"),
        ("kv_cache_too_small", "一个 2048 token 的请求就要 0.01 GiB", "max-model-len"),
        ("too_little_memory", "内存只剩 12.38 GiB", "gpu-memory-utilization"),
        ("port_taken", "端口", "LAB_API_PORT"),
        ("handshake_port_taken", "NIXL 的握手端口 127.0.0.1:34815", "再启动一次"),
        ("worker_killed", "SIGKILL", "内存"),
    ],
)
def test_each_failure_seen_has_its_cause_and_remedy(name: str, cause: str, remedy: str):
    found = cause_of_failure(log(name), exit_code=1, config="e.yaml")
    assert cause in found.cause
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # Messages from vLLM's and its libraries' sources, for what this machine cannot provoke.
        (
            "ValueError: Free memory on device cuda:0 (3.21/23.52 GiB) on startup is less than "
            "desired GPU memory utilization (0.92, 21.64 GiB). Decrease GPU memory utilization",
            "显存只剩 3.21 GiB（共 23.52 GiB），gpu-memory-utilization=0.92 需要 21.64 GiB",
        ),
        ("ValueError: No available memory for the cache blocks. Try increasing", "KV cache"),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
            "驱动太旧",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "显存不足"),
        ("OSError: You are trying to access a gated repo.", "授权"),
        ("OSError: [Errno 28] No space left on device", "磁盘已满"),
        ("ImportError: /lib64/libc.so.6: version `GLIBC_2.34' not found", "需要 2.34"),
    ],
)
def test_gpu_and_host_failures_have_their_cause(line: str, cause: str):
    assert cause in cause_of_failure(f"(EngineCore pid=1) ERROR {line}", exit_code=1).cause


def test_an_engine_killed_by_the_system_points_at_memory():
    assert "OOM" in cause_of_failure("", exit_code=-9).cause
    assert "OOM" in cause_of_failure("", exit_code=137).cause


def test_an_unknown_failure_shows_the_root_error_and_the_exit_code():
    text = """
    (Worker pid=3) ERROR 11-22 22:45:38 [multiproc_executor.py:1] TypeError: bad shape (3, 4)
    (EngineCore pid=2) ERROR 11-22 22:45:38 [core.py:1] Exception: WorkerProc initialization failed
    RuntimeError: Engine core initialization failed. See root cause above.
    """
    found = cause_of_failure(text, exit_code=1)
    assert found.cause == "引擎退出（exit code 1）：TypeError: bad shape (3, 4)"


def test_a_hanging_engine_is_called_unresponsive():
    assert cause_of_failure("INFO loading", exit_code=None).cause == "引擎没有响应"


def test_an_engine_that_will_never_answer_is_not_waited_for():
    assert waits_for_ever(log("handshake_port_taken"))
    assert not waits_for_ever(log("ready")) and not waits_for_ever(log("port_taken"))


def test_warnings_that_mention_errors_are_not_the_root():
    assert (
        root_error_line(["(APIServer) WARNING 11-22 [x.py:1] errors like `OSError: [Errno`"]) == ""
    )


def test_a_container_with_docker_s_default_shared_memory_is_told_to_enlarge_it():
    # Seen on vLLM 0.32.0 (CPU) in a container started without --shm-size.
    text = (
        "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB "
        "required, 64 MiB free. Increase /dev/shm (e.g. --shm-size or --ipc=host)."
    )
    cause = cause_of_failure(text, exit_code=1)
    assert "/dev/shm" in cause.cause and "--shm-size" in cause.remedy
