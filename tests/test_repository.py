"""What `lab.yaml` may hold at its top; a wrong file is one clear line."""

from pathlib import Path

import pytest

from inferlab.errors import UsageError
from inferlab.repository import lab_description, lab_dir, labs


@pytest.mark.parametrize("lab", labs())
def test_the_labs_of_this_repository_are_described(lab: str):
    assert {"title", "engine", "model", "experiments"} <= set(lab_description(lab_dir(lab)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: a\nexperiment: []\n", "有不认识的键 experiment"),
        ("title: a\nmodel: [\n", "第 3 行不是合法的 YAML"),
        ("- title\n", "不是一组键和值"),
        ("", "不是一组键和值"),
    ],
)
def test_a_wrong_description_is_refused_in_one_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "lab.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        lab_description(tmp_path)
    assert said in str(refused.value) and str(tmp_path / "lab.yaml") in str(refused.value)
    assert "\n" not in str(refused.value) and refused.value.remedy
