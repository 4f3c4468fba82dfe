"""vLLM's NixlConnector for machines with few cores, loaded through `kv_connector_module_path`.

Two things in vLLM 0.32.0 and nixl 1.5.1 are made for hosts with many cores. NIXL's progress thread
spins (nixl/_api.py sets pthrDelay = 0): each idle worker burns a core. And on a CPU every worker
pins its computing thread to the same, highest core (nixl/base_worker.py). On two cores a prefill
then took up to 31 s; with both undone 1 s. The protocol and the transfer are untouched. Do not use
it on a GPU host.
"""

import os

from nixl._api import nixlBind
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import NixlConnector

PROGRESS_DELAY_US = 1000


class _AgentConfig(nixlBind.nixlAgentConfig):
    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, PROGRESS_DELAY_US if name == "pthrDelay" else value)


nixlBind.nixlAgentConfig = _AgentConfig


class QuietNixlConnector(NixlConnector):
    """A NixlConnector whose progress thread sleeps, and which leaves the cores as they were."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        cores = os.sched_getaffinity(0)
        super().__init__(*args, **kwargs)
        os.sched_setaffinity(0, cores)
