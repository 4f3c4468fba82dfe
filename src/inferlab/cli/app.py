"""The typer app. A command group is a module with `register(app)`; add its name to `GROUPS`."""

from importlib import import_module
from importlib.util import find_spec

import typer

# Modules here import the heavy rooms only inside their commands: `--help` must stay quick.
GROUPS = ("lifecycle", "doctor", "tests", "record", "bench", "records", "claims", "report")

app = typer.Typer(
    name="lab",
    help="《LLM 推理优化》配套实验：启动引擎和 notebook、测量、检查环境。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for group in GROUPS:
    if find_spec(f"inferlab.cli.{group}"):
        import_module(f"inferlab.cli.{group}").register(app)
