"""Samples made by hand, for tests of what is computed from them."""

from inferlab.load import RequestSample, Status


def sample(
    at_s: float = 0.0, *, ttft_s: float = 0.1, itl_s: float = 0.02, tokens: int = 11,
    per_chunk: int = 1, wait_s: float = 0.0, status: Status = Status.OK, prompt: int = 100,
    index: int = 0,
) -> RequestSample:  # fmt: skip
    """An answer of `tokens` tokens, `per_chunk` at a time, scheduled at `at_s`."""
    sizes = [per_chunk] * (tokens // per_chunk)
    first = at_s + wait_s + ttft_s
    times = tuple(first + itl_s * per_chunk * number for number in range(len(sizes)))
    return RequestSample(
        index=index,
        scheduled_s=at_s,
        sent_s=at_s + wait_s,
        finished_s=times[-1] if times else first,
        status=status,
        chunk_s=times,
        chunk_tokens=tuple(sizes),
        prompt_tokens=prompt,
        output_tokens=sum(sizes),
    )
