"""How many draft tokens speculative decoding keeps, from vLLM's own counters.

Names as in `vllm/v1/spec_decode/metrics.py`: a draft is one proposal of up to `k` tokens; each
adds the accepted ones and one token of the target itself.
"""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_DRAFTS = "vllm:spec_decode_num_drafts_total"
_PROPOSED = "vllm:spec_decode_num_draft_tokens_total"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
_GENERATED = "vllm:generation_tokens_total"


@dataclass(frozen=True)
class Acceptance:
    """Counters of one span of time, in tokens; a difference of two readings is one again.

    Attributes:
        drafts: proposals made. n-gram drafting proposes only where it finds a match.
        generated: all tokens generated, with and without a proposal.
    """

    drafts: int
    proposed: int
    accepted: int
    generated: int

    @classmethod
    def from_metrics(cls, text: str) -> "Acceptance":
        """The counters in a server's `/metrics`, all engines together; 0 where they are absent."""
        found = dict.fromkeys((_DRAFTS, _PROPOSED, _ACCEPTED, _GENERATED), 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in found:
                    found[sample.name] += sample.value
        return cls(*map(int, found.values()))

    @property
    def rate(self) -> float:
        """Accepted share of the proposed tokens; 0 when nothing was proposed."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def length(self) -> float:
        """Mean acceptance length: tokens a verified draft yields, the target's own included."""
        return 1 + self.accepted / self.drafts if self.drafts else 1.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens a step yields over all steps, those without a proposal included.

        Slightly high for short answers: accepted tokens beyond an answer's end count as accepted
        and not as generated.
        """
        steps = self.generated - self.accepted
        return self.generated / steps if steps else 1.0

    def __sub__(self, before: "Acceptance") -> "Acceptance":
        return Acceptance(
            self.drafts - before.drafts,
            self.proposed - before.proposed,
            self.accepted - before.accepted,
            self.generated - before.generated,
        )
