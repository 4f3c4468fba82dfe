"""Pictures as their readers get them."""

import warnings

from matplotlib.figure import Figure


def rendered(figure: Figure) -> bytes:
    """The PNG; a glyph that no font has fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph … missing from font" is a warning
        image = figure._repr_png_()  # type: ignore[attr-defined]
    assert image.startswith(b"\x89PNG")
    return image
