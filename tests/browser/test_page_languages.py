"""The page in other languages."""

import json

import pytest

from ..page_texts import PAGE
from ..pictures import encoded as encode
from .screen import PHONE, photograph

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("code", ["de", "fr", "es", "ja", "zh"])
def test_the_language_of_the_browser_is_spoken(visit, code):
    words = json.loads((PAGE / "languages" / f"{code}.json").read_text(encoding="utf-8"))
    screen = visit(locale=f"{code}-XX", viewport=PHONE)
    page = screen.page
    screen.expect("html").to_have_attribute("lang", code)
    assert words["Open photographs"] in page.inner_text("#pick")
    screen.open(encode(photograph()))
    screen.expect_status(
        words["{name} is open. Paint over what should go."].format(name="photo.png")
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") == PHONE["width"]
    assert page.get_attribute("#undo", "aria-label") == words["Undo"]
    page.click("#settings")
    screen.check_accessibility()
    dialog = page.locator("#settings-dialog").bounding_box()
    assert dialog["x"] >= 0
    assert dialog["x"] + dialog["width"] <= PHONE["width"]
    # What is English there although the language has another word for it.
    english = page.evaluate(
        """(words) => [...document.querySelectorAll("#settings-dialog *")]
            .filter((one) => !one.childElementCount)
            .map((one) => one.textContent.trim())
            .filter((text) => words[text] && words[text] !== text)""",
        words,
    )
    assert english == []


def test_a_language_is_chosen_and_kept_and_an_unknown_one_is_english(visit):
    screen = visit(locale="tlh")
    page = screen.page
    screen.expect("html").to_have_attribute("lang", "en")
    screen.open(encode(photograph())).wait_open()
    screen.drag((30, 40), (60, 40))
    page.click("#settings")
    page.select_option("[name=language]", "de")
    screen.expect("html").to_have_attribute("lang", "de")
    screen.expect("#settings-title").to_have_text("Einstellungen")
    screen.expect("#run-label").to_have_text("Füllen")
    page.reload()
    screen.expect("html").to_have_attribute("lang", "de")
    screen.expect("#pick").to_contain_text("Fotos öffnen")
    page.click("#settings")
    page.select_option("[name=language]", "en")
    screen.expect("#pick").to_contain_text("Open photographs")
    screen.kept = {"musical-settings"}
    # A file of texts that does not come leaves English.
    page.route("**/languages/*.json", lambda route: route.abort())
    page.select_option("[name=language]", "fr")
    screen.expect("html").to_have_attribute("lang", "en")
