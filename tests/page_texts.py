"""The English texts of the page: the one list that every language must translate."""

import re
from html.parser import HTMLParser
from pathlib import Path

PAGE = Path(__file__).parents[1] / "serving" / "page"
_IN_JAVASCRIPT = re.compile(r'\bt\(\s*"((?:[^"\\]|\\.)*)"')
_VOID = {"meta", "link", "img", "input", "rect", "path", "circle"}


class _Texts(HTMLParser):
    """What `serving/page/language.js` translates of the HTML."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()
        self.open: list[tuple[str, bool]] = []  # the tag, and whether its text is translated
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self._end_text()
        given = dict(attributes)
        inside = self.open[-1][1] if self.open else False
        kept = tag == "kbd" or given.get("translate") == "no"
        is_translated = (inside or tag == "body") and not kept
        if inside or tag == "body":
            self.found |= {given[name] for name in ("aria-label", "data-tip") if name in given}
        if tag not in _VOID:
            self.open.append((tag, is_translated))

    def handle_endtag(self, tag):
        self._end_text()
        if tag in _VOID:
            return
        assert self.open[-1][0] == tag, f"<{self.open[-1][0]}> is closed by </{tag}>"
        self.open.pop()

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_data(self, data):
        self.text += data

    def _end_text(self):
        text = " ".join(self.text.split())
        if self.open and self.open[-1][1] and re.search(r"[^\W\d_]", text):
            self.found.add(text)
        self.text = ""


def page_texts() -> set[str]:
    parser = _Texts()
    parser.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    texts = parser.found
    for path in PAGE.glob("*.js"):
        texts |= set(_IN_JAVASCRIPT.findall(path.read_text(encoding="utf-8")))
    return texts
