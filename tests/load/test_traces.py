"""Published trace formats are recognised by their first line and keep their times and reuse."""

import json
from pathlib import Path

import pytest

from inferlab.errors import UsageError
from inferlab.load.traces import TraceOptions, load_trace
from inferlab.load.workloads import expected_hit_ratio

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.509930+00:00,2399,6
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
BURST_3 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens
1.5,s1,2.0,GPT-4,10,20,30
2.5,s1,2.0,GPT-4,11,21,32
"""


def mooncake() -> str:
    rows = [
        {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]},
        {"timestamp": 500, "input_length": 1300, "output_length": 7, "hash_ids": [0, 1, 3]},
        {"timestamp": 1500, "input_length": 600, "output_length": 9, "hash_ids": [4, 5]},
    ]
    return "\n".join(map(json.dumps, rows))


def load(tmp_path: Path, content: str, **options):
    path = tmp_path / "trace"
    path.write_text(content, encoding="utf-8")
    return load_trace(path, TraceOptions(**options))


def shape(timed) -> list[tuple[float, int, int]]:
    return [(round(t.at_s, 3), len(t.spec.prompt), t.spec.max_tokens) for t in timed]


def test_azure(tmp_path: Path) -> None:
    timed = load(tmp_path, AZURE)
    assert shape(timed) == [(0, 374, 44), (4.315, 396, 109), (4.542, 879, 55)]
    assert shape(load(tmp_path, AZURE_2024)) == [(0, 2162, 5), (0.5, 2399, 6)]


def test_burstgpt_leaves_failed_requests_out(tmp_path: Path) -> None:
    assert shape(load(tmp_path, BURST)) == [(0, 472, 18), (113, 417, 276)]
    assert shape(load(tmp_path, BURST_3)) == [(0, 10, 20), (1, 11, 21)]


def test_mooncake_keeps_prefix_reuse(tmp_path: Path) -> None:
    timed = load(tmp_path, mooncake())
    assert shape(timed) == [(0, 1100, 5), (0.5, 1300, 7), (1.5, 600, 9)]
    assert timed[0].spec.prompt[:1024] == timed[1].spec.prompt[:1024]
    assert timed[0].spec.prompt[1024:] != timed[1].spec.prompt[1024:1100]
    specs = [item.spec for item in timed]
    assert expected_hit_ratio(specs) == pytest.approx(1024 / 3000)


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"prompt": "hello", "max_tokens": 5, "timestamp": 10},
        {"messages": [{"role": "user", "content": "hi"}], "timestamp": 10.5},
        {"prompt": [1, 2, 3], "output_tokens": 7, "timestamp": 9},
    ]
    timed = load(tmp_path, "\n\n".join(map(json.dumps, lines)))
    assert [(t.at_s, t.spec.max_tokens) for t in timed] == [(0, 7), (1, 5), (1.5, 128)]
    assert timed[1].spec.prompt == "hello"


def test_parts_of_a_trace(tmp_path: Path) -> None:
    assert len(load(tmp_path, AZURE, limit=2)) == 2
    assert len(load(tmp_path, AZURE, duration_s=4.4)) == 2
    assert len(load(tmp_path, AZURE, max_prompt_tokens=400)) == 2
    assert shape(load(tmp_path, AZURE, max_output_tokens=50))[1][2] == 50
    assert load(tmp_path, BURST, speed=2)[1].at_s == 56.5
    assert load(tmp_path, AZURE, seed=1) == load(tmp_path, AZURE, seed=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "认不出"),
        ("", "认不出"),
        (AZURE + "yesterday,1,2\n", "第 5 行"),
        (AZURE + "2023-11-16 18:15:46,x,2\n", "第 5 行"),
        (BURST + "1,GPT-4,2\n", "第 5 行"),
        ('{"prompt": "a"}\n{"prompt": \n', "第 2 行"),
        ('{"prompt": "a"}\n[1]\n', "第 2 行"),
        ('{"promt": "a"}\n', "第 1 行"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no-such\.csv"):
        load_trace(tmp_path / "no-such.csv")
