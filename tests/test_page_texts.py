"""The languages of the page: every text is translated, and nothing else."""

import json
import re

import pytest

from .page_texts import PAGE, page_texts

LANGUAGES = ("de", "es", "fr", "ja", "zh")


def test_the_page_offers_every_language_that_it_has():
    assert {path.stem for path in (PAGE / "languages").iterdir()} == set(LANGUAGES)
    script = (PAGE / "language.js").read_text(encoding="utf-8")
    assert set(re.findall(r"^  (\w\w): \"", script, re.MULTILINE)) == {"en", *LANGUAGES}


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_has_every_text_and_its_values(code):
    content = (PAGE / "languages" / f"{code}.json").read_text(encoding="utf-8")
    pairs = json.loads(content, object_pairs_hook=list)
    texts = [text for text, _ in pairs]
    assert texts == sorted(page_texts())
    for text, translation in pairs:
        names = re.compile(r"\{\w+\}")
        assert sorted(names.findall(text)) == sorted(names.findall(translation)), text
        assert translation.strip()
