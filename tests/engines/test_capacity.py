"""The ledger's prediction against what a real engine says of itself when it starts."""

import pytest

from inferlab.arithmetic.shapes import ModelShape
from inferlab.engines.capacity import engine_options, predict_capacity, predict_ledger
from inferlab.engines.lifecycle import startup_report
from inferlab.engines.served import served_model
from inferlab.repository import root

EMBEDDED = root() / "models" / "lab-python-8m"


@pytest.mark.engine
def test_max_concurrency_is_within_three_per_cent_of_the_engines_own_line(embedded_engine: str):
    served = served_model(embedded_engine)
    predicted = predict_capacity("chapter03", served.shape(engine_options("chapter03", "cpu")))
    reported = startup_report(embedded_engine)
    assert reported.max_concurrency is not None
    assert predicted.max_concurrency == pytest.approx(reported.max_concurrency, rel=0.03)
    assert predicted.tokens == pytest.approx(reported.kv_cache_tokens, rel=0.03)
    assert served.max_model_len == predicted.max_model_len


def test_a_cpu_engines_cache_is_what_its_configuration_fixes():
    shape = ModelShape.from_config(EMBEDDED)
    options = engine_options("chapter03", "cpu")
    ledger = predict_ledger("chapter03", shape)
    if ledger.row("kv_cache").bytes == options["kv-cache-memory-bytes"]:
        assert ledger.row("kv_cache").exact
    else:  # on a GPU machine the cache is what the other rows leave
        assert ledger.fits
