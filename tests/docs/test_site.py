"""The site is built from the pages without a warning, and asks nobody for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import\s*)["']?((?:https?:)?//[^"')\s>]+)"""
)
SHOWN_AS_TEX = re.compile(r"formula\d+held|\$`|\\\\(?:frac|sum|theta|mathrm)")


def test_site_builds_strictly_and_needs_no_network(tmp_path: Path) -> None:
    built = tmp_path / "site"
    words = ("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built))
    done = subprocess.run(
        (sys.executable, *words),
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(built.rglob("*.html"))
    assert len(pages) >= 20
    for page in (*pages, *built.rglob("*.css")):
        assert not FETCHED.findall(page.read_text("utf-8")), page.name
    method = (built / "method.html").read_text("utf-8")
    assert method.count("<math") >= 30
    assert not SHOWN_AS_TEX.search(method)
    assert 'href="wire.html"' in method
    # Docstrings are there, with what is private left out.
    core = (built / "api" / "core.html").read_text("utf-8")
    assert "elsa.core.split.Split" in core
    assert "BehaviourError" in (built / "api" / "index.html").read_text("utf-8")
    assert "def _" not in core


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"([\w./-]+\.md)$", text, re.MULTILINE))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert named == there
