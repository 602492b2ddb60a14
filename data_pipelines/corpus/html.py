"""Convert HTML pages to plain text."""

from functools import cache
from typing import TYPE_CHECKING, Final

import lxml.etree
import lxml.html

if TYPE_CHECKING:
    from inscriptis.model.config import ParserConfig

_FURNITURE: Final = ("aside", "button", "footer", "form", "header", "iframe", "nav", "select", "svg")
"""Elements that do not belong to the content of a page."""


def html_to_text(content: bytes) -> str:
    """Convert the visible text of the page's main part to plain text; return "" for a page without a body.

    The main part is the element that the page marks as such, else everything except menus, headers and footers. The
    encoding is the one that the page declares, else UTF-8.
    """
    from inscriptis.html_engine import Inscriptis

    try:
        tree = lxml.html.fromstring(content, parser=lxml.html.HTMLParser(encoding=_declared_encoding(content)))
    except (lxml.etree.ParserError, ValueError):
        return ""
    main = tree.xpath("//main | //*[@role='main']")
    if len(main) == 1:
        tree = main[0]
        tree.tail = None
    for block in list(tree.iter("pre")):
        _flatten(block)
    return Inscriptis(tree, _parser_config()).get_text()


def _flatten(block: lxml.html.HtmlElement) -> None:
    """Replace the content of a ``pre`` by its text: inscriptis would lose line breaks in nested elements."""
    lxml.etree.strip_elements(block, *_FURNITURE, with_tail=False)
    for line_break in block.iter("br"):
        line_break.tail = f"\n{line_break.tail or ''}"
    text, tail = block.text_content(), block.tail
    block.clear()
    block.text, block.tail = text, tail


def _declared_encoding(content: bytes) -> str | None:
    """Return UTF-8 if the page declares no encoding, since libxml2 would assume Latin-1."""
    return None if b"charset" in content[:2048].lower() or content.startswith(b"<?xml") else "utf-8"


@cache
def _parser_config() -> "ParserConfig":
    from inscriptis.css_profiles import STRICT_CSS_PROFILE
    from inscriptis.html_properties import Display
    from inscriptis.model.config import ParserConfig
    from inscriptis.model.html_element import HtmlElement

    hidden = HtmlElement(display=Display.none)
    return ParserConfig(css=STRICT_CSS_PROFILE | dict.fromkeys(_FURNITURE, hidden))
