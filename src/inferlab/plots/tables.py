"""Small tables for notebooks."""

from collections.abc import Iterable, Sequence

from IPython.display import Markdown


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """A Markdown table; numbers are right-aligned, floats shown with three significant digits."""
    body = [list(row) for row in rows]
    numeric = [all(isinstance(row[i], int | float) for row in body) for i in range(len(headers))]
    lines = [headers, ["--:" if right else ":--" for right in numeric]]
    lines += [[_cell(value) for value in row] for row in body]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
