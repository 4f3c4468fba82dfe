"""Whether KV cache really moved between engines, how much, how fast: by the engines' own counters.

A router that answers 200 has proven nothing: the decode worker may have computed the prompt itself.
Counted on the decode worker (vLLM 0.32.0, distributed/kv_transfer/kv_connector/v1/nixl): reads that
were finished, their bytes and seconds, and where its prompt tokens came from. vLLM's
`external_prefix_cache_hits` is not used: it rises for a read that failed, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from prometheus_client.parser import text_string_to_metric_families

from inferlab.engines import health

_SERIES = {
    "reads": "vllm:nixl_xfer_time_seconds_count",
    "seconds": "vllm:nixl_xfer_time_seconds_sum",
    "post_seconds": "vllm:nixl_post_time_seconds_sum",
    "bytes": "vllm:nixl_bytes_transferred_sum",
    "descriptors": "vllm:nixl_num_descriptors_sum",
    "failed": "vllm:nixl_num_failed_transfers_total",
    "expired": "vllm:nixl_num_kv_expired_reqs_total",
    "late": "vllm:nixl_num_notifications_after_expiry_total",
}
_TOKENS = "vllm:prompt_tokens_by_source_total"
_SOURCES = {"local_compute": "computed_tokens", "external_kv_transfer": "moved_tokens"}


@dataclass(frozen=True)
class Transfers:
    """Counters of one engine, or of several added up.

    Attributes:
        reads: KV caches read from another engine, one a request.
        seconds: that the reads took, added up.
        post_seconds: that the engine's own thread spent on handing them to NIXL; no token is made
            meanwhile.
        descriptors: pieces that were read: one a block and layer, neighbouring blocks joined.
        failed: reads, handshakes and notifications that failed.
        expired: KV caches that were given up because nobody read them in time (prefill side).
        late: reads that came after that: their tokens may be wrong (prefill side).
        computed_tokens: prompt tokens that were computed here.
        moved_tokens: prompt tokens whose KV cache was read from another engine.
    """

    reads: float = 0
    seconds: float = 0
    post_seconds: float = 0
    bytes: float = 0
    descriptors: float = 0
    failed: float = 0
    expired: float = 0
    late: float = 0
    computed_tokens: float = 0
    moved_tokens: float = 0

    @classmethod
    def read(cls, urls: Iterable[str]) -> "Transfers":
        """From the engines' `/metrics`.

        Raises:
            OSError: an engine does not answer.
        """
        found = [cls.parse(health.metrics(url)) for url in urls]
        return cls(*(sum(getattr(each, f.name) for each in found) for f in fields(cls)))

    @classmethod
    def parse(cls, text: str) -> "Transfers":
        """From one engine's Prometheus text; a counter that is not there is 0."""
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        totals = {
            name: sum(s.value for s in samples if s.name == series)
            for name, series in _SERIES.items()
        }
        for source, name in _SOURCES.items():
            totals[name] = sum(
                s.value for s in samples if s.name == _TOKENS and s.labels.get("source") == source
            )
        return cls(**totals)

    def since(self, before: "Transfers") -> "Transfers":
        """What was counted after an earlier look."""
        names = [f.name for f in fields(self)]
        return Transfers(*(getattr(self, name) - getattr(before, name) for name in names))

    @property
    def bytes_per_s(self) -> float:
        """While reading; 0 without any read."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def problem(self, requests: int, prompt_tokens: int = 0) -> str:
        """Why not every one of so many requests got its prompt's KV cache moved; empty if all did.

        Args:
            requests: answered between two looks at the decode workers.
            prompt_tokens: of them all, in prompts that were not cached. Given where others may have
                asked meanwhile, as a container's health check does: what those computed does not
                count.
        """
        if self.late:
            return f"{self.late:.0f} 次读取晚于租期，答案可能有错"
        if not self.reads:
            return "没有传过 KV：decode 自己算了 prompt"
        if self.failed or self.reads < requests:
            return f"{requests} 个请求只传了 {self.reads:.0f} 次 KV，失败 {self.failed:.0f} 次"
        computed = prompt_tokens - self.moved_tokens if prompt_tokens else self.computed_tokens
        return f"decode 自己算了 {computed:.0f} 个 prompt token" if computed > 0 else ""
