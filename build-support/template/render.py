"""What copier's rendering of this repository still lacks: copier.yml runs it in the new repository.

    python3 build-support/template/render.py PRODUCT

It puts the product's name where the worked example's is, takes out what is marked as of this
repository alone, lets BUILD files forget what did not go over, and puts in the files of `files/`.
What it does depends on the template and the name alone, never on what else the new repository
holds, because `copier update` compares two renderings. Python's standard library alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from template.build_files import without_absent
from template.kept import kept

TEMPLATE = Path(__file__).resolve().parents[2]
EXAMPLE = "churn"
# Where the example is named as what is to be run, its name becomes the product's. Elsewhere, in
# tests and docstrings, it is any name: one as long, so that no line grows.
ANY_NAME = "trial"
PRODUCTS = ("deploy/", "docs/", "feature_repo/", ".ci/", ".github/")
# The example's entries in the lists of all products, which `espalier new` adds to.
_ENTRIES = {
    "build-support/macros/products.py": re.compile(rf'(?<=\()\s*"{EXAMPLE}",?\s*(?=\))'),
    "deploy/prefect/deployments.toml": re.compile(
        rf'(#.*\n)*\[\[deployment\]\]\nname = "{EXAMPLE}-(.+\n)+\n*', re.MULTILINE
    ),
}
# The example's data ended long ago, so what serves them is told a day: a comment line, and the option.
_LONG_AGO = re.compile(
    r"^ *#.*[Cc]ommitted data end in .*\n|^ *- --as-of=.*\n|(?<=:-)--as-of [0-9-]+", re.MULTILINE
)
_BEGIN, _END = "not in a new repository: from here", "not in a new repository: to here"


def main() -> int:
    """Finish the rendering in the working directory; give the exit code."""
    (product,) = sys.argv[1:]
    target = Path.cwd()
    paths = kept(TEMPLATE)
    for path in paths:
        # Not there: rendered under another name, or deleted by who has the repository.
        if (target / path).is_file():
            _finish(target / path, path, product, set(paths))
    put_in = TEMPLATE / "build-support/template/files"
    for source in sorted(path for path in put_in.rglob("*") if path.is_file()):
        file = target / source.relative_to(put_in)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source.read_text("utf-8").replace("@product@", product), "utf-8")
    return 0


def _finish(file: Path, path: str, product: str, paths: set[str]) -> None:
    try:
        text = before = file.read_text("utf-8")
    except UnicodeDecodeError:
        return
    text = unmarked(text, path)
    for register, entry in _ENTRIES.items():
        if path == register:
            text = entry.sub("", text)
    if path.startswith("deploy/"):
        text = _LONG_AGO.sub("", text)
    if file.name == "BUILD":
        text = without_absent(text, path.rpartition("/")[0], paths, EXAMPLE)
    names_product = path.startswith(PRODUCTS) or file.suffix in (".md", ".toml")
    text = renamed(text, product if names_product else ANY_NAME)
    if text != before:
        file.write_text(text, "utf-8")


def unmarked(text: str, path: str) -> str:
    """The text without the lines from a mark to its end, both included.

    Raises:
        SystemExit: a mark has no end, or an end no mark.
    """
    lines, inside = [], False
    for line in text.splitlines(keepends=True):
        if _BEGIN in line or _END in line:
            if inside == (_BEGIN in line):
                sys.exit(f"{path}: marks of what does not go over do not come in pairs")
            inside = _BEGIN in line
        elif not inside:
            lines.append(line)
    if inside:
        sys.exit(f"{path}: marks of what does not go over do not come in pairs")
    return "".join(lines)


def renamed(text: str, name: str) -> str:
    """The text with another product in the example's place, what is drawn after it unmoved."""

    def width_kept(found: re.Match[str]) -> str:
        word = _renamed_word(found[1], name)
        spaces = len(found[0]) - len(word)
        return word + " " * max(spaces, 1)

    text = re.sub(rf"(\S*{EXAMPLE}\S*)  +(?=[│|])", width_kept, text, flags=re.IGNORECASE)
    return _renamed_word(text, name)


def _renamed_word(text: str, name: str) -> str:
    text = text.replace(EXAMPLE, name).replace(EXAMPLE.upper(), name.upper())
    return text.replace(EXAMPLE.capitalize(), name.capitalize())


if __name__ == "__main__":
    sys.exit(main())
