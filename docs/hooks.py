"""What the site makes of the pages: links between them, and formulas as MathML.

Pages name each other as `docs/wire.md`, which reads well in an editor; here such a name becomes a
link. A formula is a fenced block of `math`, or stands between $` and `$; both are TeX.
"""

import posixpath
import re
from collections.abc import Callable

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PAGE = re.compile(r"`docs/([\w./-]+\.md|[\w./-]+/)`")
BLOCK = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\$`(.+?)`\$")
HELD = re.compile(r"(<p>)?formula(\d+)held(?(1)</p>)")
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)

_formulas: list[str] = []


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links, and put formulas aside, so that nothing in them is taken for Markdown."""
    _formulas.clear()
    here = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = found[1] if found[1].endswith(".md") else f"{found[1]}README.md"
        if files.get_file_from_path(target) is None:
            return found[0]
        return f"[{found[0]}]({posixpath.relpath(target, here or '.')})"

    def hold(display: str) -> Callable[[re.Match[str]], str]:
        def keep(found: re.Match[str]) -> str:
            _formulas.append(convert(found[1].strip(), display=display))
            return f"formula{len(_formulas) - 1}held"

        return keep

    text = BLOCK.sub(hold("block"), COMMENT.sub("", markdown))
    return PAGE.sub(link, INLINE.sub(hold("inline"), text))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the formulas where they belong."""
    return HELD.sub(lambda found: _formulas[int(found[2])], html)
