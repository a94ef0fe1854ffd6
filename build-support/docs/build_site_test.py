"""The site is built without a warning, finds what is asked for, and loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs import build_site

ROOT = Path.cwd()
# What a browser fetches by itself; a link is only followed by a person.
LOADED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("input", "src"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("track", "src"),
    ("video", "poster"),
    ("video", "src"),
}


class Page(HTMLParser):
    """What a page loads, where it leads, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        # MkDocs names the site's own address in these two; we give none.
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        self.loaded += [given[name] for of, name in LOADED if of == tag and given.get(name)]
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build_site.build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def pages(built):
    return {path: Page(path.read_text()) for path in built.rglob("*.html")}


def test_a_warning_is_an_error(tmp_path):
    """A site of two pages, of which one leads nowhere."""
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# One\n\n[Two](two.md)\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = settings[: settings.index("\nnav:")].replace(
        "hooks: [build", f"hooks: [{ROOT}/build"
    )
    (tmp_path / "mkdocs.yml").write_text(settings)
    with pytest.raises(Abort):
        build_site.build(tmp_path, tmp_path / "site")
    (tmp_path / "docs/two.md").write_text("# Two\n\nThere.\n")
    build_site.build(tmp_path, tmp_path / "site")
    assert (tmp_path / "site/two.html").exists()


def test_every_page_of_the_documentation_is_in_it(pages, built):
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    there = {path.relative_to(built) for path in pages}
    assert {path.with_suffix(".html") for path in written} <= there
    assert len(written) > 30


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("quarantine", "data.html"),
        ("POSTGRES_PASSWORD_FILE", "reference/settings.html"),
        ("StreamPredict", "reference/contract.html"),
        ("espalier_drift_verdict", "reference/metrics.html"),
        ("SNAPSHOT_CONFLICT", "reference/errors.html"),
        ("EspalierDrift", "runbooks.html"),
        ("pg_restore", "operations/backup.html"),
        ("produit", "fr/nouveau-produit.html"),
    ],
)
def test_the_search_knows_it(built, word, page):
    index = json.loads((built / "search/search_index.json").read_text())
    found = {
        entry["location"].partition("#")[0]
        for entry in index["docs"]
        if word in entry["title"] + entry["text"]
    }
    assert page in found


def test_the_search_works_from_files(built):
    """A page that is a file can fetch nothing, so the index is a script beside it."""
    script = (built / "search/search_index.js").read_text()
    name, _, index = script.partition(" = ")
    assert name == "var __index"
    assert json.loads(index)["docs"]
    assert (built / "assets/iframe-worker.js").is_file()


def test_nothing_is_loaded_from_elsewhere(pages, built):
    loaded = {url for page in pages.values() for url in page.loaded}
    assert any(url.endswith(".css") for url in loaded)
    assert [url for url in loaded if urlsplit(url).scheme not in ("", "data")] == []
    assert [url for url in loaded if urlsplit(url).netloc] == []
    styles = [path.read_text() for path in built.rglob("*.css")]
    fetched = [
        url for text in styles for url in re.findall(r"url\(['\"]?(?!data:)([^)'\"]+)", text)
    ]
    assert [url for url in fetched if urlsplit(url).netloc] == []


def test_what_is_loaded_and_every_link_is_there(pages, built):
    wrong = []
    for path, page in pages.items():
        for url in [*page.loaded, *page.links]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            given = unquote(parts.path)
            # A server shows that page under any path, so its links begin at the site's root.
            if path.name == "404.html" and given.startswith("/"):
                given = given.removeprefix("/")
            where = (path.parent / given).resolve() if given else path
            if where.is_dir():
                where /= "index.html"
            if not where.is_file():
                wrong.append(f"{path.relative_to(built)}: {url}")
            elif parts.fragment and where in pages:
                anchors = pages[where].anchors
                # Material's own buttons lead to the top.
                if unquote(parts.fragment) not in anchors | {"__skip"}:
                    wrong.append(f"{path.relative_to(built)}: {url} has no such anchor")
    assert wrong == []


def test_a_file_of_the_repository_is_in_it_as_text(built):
    assert (built / "files/env.example.txt").read_text() == (ROOT / ".env.example").read_text()
    page = (built / "troubleshooting.html").read_text()
    assert 'href="files/env.example.txt"' in page
