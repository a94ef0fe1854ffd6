"""Links of the documentation to files of the repository, for MkDocs.

A page names a file beside the documentation as it is in the repository, such as
`../deploy/docker/compose.yaml`. The site has a copy of the file, as text, and the page's link leads
there. A folder has no page, so its name stays and the link goes.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>(?:\.\./)+[^)#\s]+)\)")
# Where the copies are in the site.
FOLDER = "files"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the repository's files that pages name."""
    from mkdocs.structure.files import File

    root = _root(config)
    named = {
        path
        for page in files.documentation_pages()
        for found in _LINK.finditer(page.content_string)
        if (path := _outside(page.src_uri, found["target"])) and (root / path).is_file()
    }
    for path in sorted(named):
        copy = File.generated(config, _copy(path), content=(root / path).read_text("utf-8"))
        files.append(copy)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Any) -> str:
    """Lead a page's links to the copies."""
    del files
    here = page.file.src_uri
    root = _root(config)

    def lead(found: re.Match[str]) -> str:
        path = _outside(here, found["target"])
        if path is None:
            return found[0]
        if (root / path).is_dir():
            return f"`{found['text']}`"
        # A file that is not there stays as it is, and MkDocs complains of it.
        if not (root / path).is_file():
            return found[0]
        return f"[{found['text']}]({posixpath.relpath(_copy(path), posixpath.dirname(here))})"

    return _LINK.sub(lead, markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def _outside(page: str, target: str) -> str | None:
    """The path in the repository that a page's link names; None of one inside of docs."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith(("docs/", "..")) else path


def _copy(path: str) -> str:
    # MkDocs leaves out what is hidden.
    shown = "/".join(part.removeprefix(".") for part in path.split("/"))
    return f"{FOLDER}/{shown}.txt"
