"""The page of errors says what the catalogue says."""

from __future__ import annotations

import pytest

from controlplane.errors import CATALOGUE
from tests.docs.errors_page import PAGE, render, row


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_is_on_the_page_in_its_own_words(code: str) -> None:
    assert row(code, CATALOGUE[code]) in PAGE.read_text().splitlines()


def test_the_page_is_the_one_that_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text() == render(), "make it anew: python -m tests.docs.errors_page"
