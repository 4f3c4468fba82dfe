"""Chapter 5's exercises: each asks for what the section before it has shown how to compute."""

from inferlab.arithmetic.kv_cache import kv_bytes_per_token, max_concurrency
from inferlab.arithmetic.roofline import linear_ridge_tokens, prefill
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter03 import GIB, gpu, known_shape
from inferlab.book.exercise import Exercise
from inferlab.records import store
from inferlab.records.rooflines import measured_ceilings


def blocks_of(prompt: int, output: int, block_size: int) -> int:
    """KV blocks that a request holds at its end; the last token made is never read again."""
    return -(-(prompt + output - 1) // block_size)


def steps_of(prompt: int, output: int, max_num_batched_tokens: int) -> int:
    """Engine steps of a request that is alone: its prefill's chunks, the last of which makes the
    first token, then a step a token."""
    return -(-prompt // max_num_batched_tokens) + output - 1


def chunk_floors_ms(
    shape: ModelShape, ceilings: Ceilings, prompt: int, max_num_batched_tokens: int
) -> list[float]:
    """The roofline's milliseconds of each chunk of a prefill, in order."""
    ends = [*range(max_num_batched_tokens, prompt, max_num_batched_tokens), prompt]
    starts = [0, *ends[:-1]]
    return [
        1e3 * prefill(shape, 1, end, cached=start).total.against(ceilings).floor_s
        for start, end in zip(starts, ends, strict=True)
    ]


def _blocks_of_a_request() -> float:
    return blocks_of(1000, 200, 16)


def _requests_in_6_gib() -> float:
    pool = max_concurrency(known_shape("qwen3-8b"), 6 * GIB, 8192)
    return pool.num_blocks // blocks_of(1024, 256, pool.block_size)


def _static_slot_share() -> float:
    answers = (16, 64, 128, 512)
    return sum(answers) / (len(answers) * max(answers))


def _steps_of_a_long_prompt() -> float:
    return steps_of(8000, 16, 512)


def _tokens_of_two_per_cent() -> float:
    return 0.02 * gpu("NVIDIA H200").memory_bytes / kv_bytes_per_token(known_shape("qwen3-8b"))


def _batch_that_leaves_the_bandwidth_roof() -> float:
    ceilings = measured_ceilings(store.find("chapter03", "ceilings", "h200"))
    return linear_ridge_tokens(known_shape("qwen3-8b"), ceilings) or 0.0


def _sequences_by_littles_law() -> float:
    return 30 * 200 * 0.040


EXERCISES = (
    Exercise(
        "ch05-1",
        "prompt 1,000 token、输出 200 token，block 16 token：请求结束时占多少个 block？",
        _blocks_of_a_request,
        "(prompt + 输出 − 1) ÷ 16，向上取整；最后一个 token 生成后就结束，不再写入 KV",
        tolerance=0.001,
    ),
    Exercise(
        "ch05-2",
        "Qwen3-8B，6 GiB KV cache，block 16：能同时放下多少个结束时 1,024 进 256 出的请求？",
        _requests_in_6_gib,
        "先算池里有多少个 block（每个 16 × 147,456 字节），再除以每个请求的 block 数，向下取整",
        tolerance=0.001,
    ),
    Exercise(
        "ch05-3",
        "静态 batch 里 4 个请求各输出 16、64、128、512 token：slot 占用率是多少（0 到 1）？",
        _static_slot_share,
        "用到的 slot·步 ÷ 总 slot·步；整个 batch 要等最长的一个",
    ),
    Exercise(
        "ch05-4",
        "8,000 token 的 prompt、输出 16 token，max-num-batched-tokens 512，没有别的请求：共几步？",
        _steps_of_a_long_prompt,
        "prefill 的步数向上取整；prefill 最后一步就给出第 1 个 token",
        tolerance=0.001,
    ),
    Exercise(
        "ch05-5",
        "H200 上 gpu-memory-utilization 从 0.90 提到 0.92，Qwen3-8B 的 KV cache 多放多少 token？",
        _tokens_of_two_per_cent,
        "多出的显存全归 KV cache：0.02 × 显存（H200 是 141 GiB）÷ 每 token 147,456 字节",
        tolerance=0.08,
    ),
    Exercise(
        "ch05-6",
        "按 H200 的实测上限，Qwen3-8B 的线性层在 batch 到多少时由等带宽变为等算力？",
        _batch_that_leaves_the_bandwidth_roof,
        "约等于实测 bf16 算力 ÷ 实测带宽，激活的读写会让它稍大；也可用 linear_ridge_tokens",
        tolerance=0.15,
    ),
    Exercise(
        "ch05-7",
        "每秒 30 个请求，每个输出 200 token，TPOT 40 ms：平均有多少个序列同时在 decode？",
        _sequences_by_littles_law,
        "Little 定律：在途数 = 到达率 × 逗留时间，逗留时间 ≈ 输出 token × TPOT",
    ),
)
