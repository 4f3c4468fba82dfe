"""How long the router waits, and how often it tries."""

from dataclasses import dataclass

# vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): never write to one that
# is about to go, for a POST that broke off cannot be told from a worker that died.
KEEPALIVE_S = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds.

    The defaults are for a GPU. The two step limits leave room for queues: a dead worker refuses
    at once, and a frozen one is found by the health checks in about ten seconds, after which the
    requests that wait for it move on. A CPU engine that needs a minute for a prompt wants all of
    them larger, `health_s` too, which is also the time that a check waits for its answer.

    Args:
        tries: attempts per request; a worker that refuses the connection does not use one up.
        prefill_s: from sending the prompt to prefill's answer.
        first_token_s: from asking the decode worker to its first event. In a prefill-decode pair
            the age of the KV blocks bounds it too, see `kv_lease_s`; a plain replica, which does
            both, has `prefill_s` besides.
        deadline_s: whole request, from its arrival to its last byte.
        kv_lease_s: how long prefill keeps the blocks of a finished prompt; vLLM's
            `kv_connector_extra_config.kv_lease_duration`, 30 by default. Must not be larger here.
        health_s: pause between two health checks of a worker, and the time for each, at least 2.
    """

    tries: int = 3
    prefill_s: float = 30.0
    first_token_s: float = 20.0
    deadline_s: float = 600.0
    kv_lease_s: float = 30.0
    health_s: float = 1.0
