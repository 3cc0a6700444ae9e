"""The inputs that coverage-guided runs have kept (`tests.fuzz.run`), and the odd cases of the codecs' own tests."""

from __future__ import annotations

import pytest

from tests.fuzz.properties import PROPERTIES, compiled
from tests.fuzz.run import CORPUS, read_corpus
from tests.native.test_http1 import ODD_REQUESTS, RESPONSES, USUAL_REQUESTS
from tests.wire.http1 import cases

SEEDS: dict[str, list[bytes]] = {
    "request": [
        *cases.ACCEPTED_REQUESTS,
        *(case.data for case in cases.REFUSED_REQUESTS),
        *USUAL_REQUESTS,
        *ODD_REQUESTS,
    ],
    "response": [*cases.ACCEPTED_RESPONSES, *(case.data for case in cases.REFUSED_RESPONSES), *RESPONSES],
    "chunked": [case.data for case in (*cases.ACCEPTED_BODIES, *cases.REFUSED_BODIES)],
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_property_holds_for_all_that_was_found(name: str) -> None:
    inputs = read_corpus(name)
    assert inputs
    for data in (*inputs, *SEEDS.get(name, ())):
        PROPERTIES[name](data)


def test_every_file_has_its_property() -> None:
    assert {file.stem for file in CORPUS.iterdir()} == set(PROPERTIES)


def test_the_compiled_scanner_is_compared_where_it_was_built() -> None:
    try:
        import lbproxy.native._http1  # noqa: F401
    except ImportError:
        assert compiled is None
    else:
        assert compiled is not None
