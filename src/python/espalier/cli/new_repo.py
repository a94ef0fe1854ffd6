"""`espalier new-repo` and `update-repo`: a repository of one's own, and our later versions in it.

copier renders the template, which is a git repository with copier.yml at its root, and merges its
later tags into what was made of it. docs/new-repository.md tells what goes over.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espalier.authoring import names
from espalier.cli import new
from espalier.errors import CheckRefused, ConfigurationError, DependencyUnreachable, UsageError

ANSWERS = ".copier-answers.yml"
_TEMPLATE = "copier.yml"


def add_new_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `new-repo`."""
    parser.add_argument("path", type=Path, help="the new repository's folder, not there or empty")
    parser.add_argument(
        "--name", help="the first product, as its Python package is called; default: PATH's name"
    )
    parser.add_argument(
        "--template",
        metavar="URL_OR_PATH",
        help="the git repository that it is made from; default: the checkout this is run in",
    )
    _add_ref(parser)
    # Those of `espalier new`, for a product that is made at once.
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="a CSV or Parquet file, or a folder; default: the product is made later",
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="answers.toml of an earlier run"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing; refuse what is open")
    new.add_answers(parser)
    parser.set_defaults(run=run_new)


def add_update_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `update-repo`."""
    _add_ref(parser)
    parser.set_defaults(run=run_update)


def _add_ref(parser: argparse.ArgumentParser) -> None:
    told = "the template's tag or commit; default: its newest tag, without one its newest commit"
    parser.add_argument("--ref", help=told)


def run_new(options: argparse.Namespace) -> int:
    """Make a repository, with its first commit; whole, or not at all.

    Raises:
        UsageError: the folder is in use, or the template is none.
        ConfigurationError: git is missing, or does not know who commits.
        DependencyUnreachable: the template cannot be fetched.
    """
    _check_git(identity=True)
    path = Path(options.path)
    _check_unused(path)
    template = options.template or str(_checkout())
    name = options.name or re.sub(r"[-.\s]+", "_", path.absolute().name.lower())
    names.check_product(name, path, ())
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".new-repo-") as place:
        made = Path(place) / "repository"
        version = _render(template, made, ref=options.ref, product=name)
        if options.source is not None:
            code = new.run(argparse.Namespace(**{**vars(options), "name": name, "root": made}))
            if code:
                return code
        _commit(made, f"Espalier {version}, for {name}")
        if path.exists():
            path.rmdir()
        made.rename(path)
    print(f"{path} holds Espalier {version} for the product {name}, committed on main")
    if options.source is None:
        print(f"next: cd {path} && ./pants new {name} --from FOLDER_OR_CSV")
    return 0


def run_update(options: argparse.Namespace) -> int:
    """Merge the template's later version into the repository of the working directory.

    Raises:
        UsageError: this is not the root of such a repository, or it has uncommitted changes.
        CheckRefused: some changes contradict local ones; both are in the files, marked.
        DependencyUnreachable: the template cannot be fetched.
    """
    import copier

    _check_git(identity=False)
    if not Path(ANSWERS).is_file():
        raise UsageError(
            f"there is no {ANSWERS} here",
            fix="run this at the root of a repository that new-repo made",
        )
    if changed := _git("status", "--porcelain"):
        raise UsageError(
            f"{len(changed.splitlines())} files have changes that are not committed",
            fix="commit or stash them, so that an update can be told from them",
        )
    before, template = _answer("_commit"), _answer("_src_path")
    if template.startswith("/") and not Path(template).exists():
        raise DependencyUnreachable(
            f"the template {template} of {ANSWERS} is not on this machine",
            fix="put a checkout of it there",
        )
    with _as_one_line(template, options.ref):
        copier.run_update(
            Path.cwd(),
            vcs_ref=options.ref,
            defaults=True,
            overwrite=True,
            unsafe=True,
            quiet=True,
        )
    after = _answer("_commit")
    if after == before:
        print(f"{before} is what is here already")
        return 0
    files = _git("status", "--porcelain").splitlines()
    print(f"{before} -> {after}: {len(files)} files changed; see them by git diff, then commit")
    if conflicts := _git("diff", "--name-only", "--diff-filter=U").splitlines():
        raise CheckRefused(
            f"both sides changed the same lines of {', '.join(conflicts)}",
            fix="choose between the lines that git marked, git add them, then commit",
        )
    return 0


def _render(template: str, target: Path, *, ref: str | None, product: str) -> str:
    import copier

    folder = Path(template).expanduser()
    if folder.exists():
        template = str(folder.absolute())
        if not (folder / _TEMPLATE).is_file() or not (folder / ".git").exists():
            raise UsageError(
                f"{folder} is no template: the root of a git repository with {_TEMPLATE}",
                fix="name a checkout of Espalier, or its address, by --template",
            )
        # copier would take in what is not committed, and not find that again.
        ref = ref or (None if _has_version(folder) else _git("rev-parse", "HEAD", at=folder))
    with _as_one_line(template, ref):
        copier.run_copy(
            template,
            target,
            data={"product": product},
            vcs_ref=ref,
            defaults=True,
            unsafe=True,
            quiet=True,
        )
    return _answer("_commit", target)


@contextmanager
def _as_one_line(template: str, ref: str | None) -> Iterator[None]:
    """Let copier's errors, and git's within, be ours."""
    from copier.errors import CopierError
    from plumbum import ProcessExecutionError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ProcessExecutionError as error:
        said = (str(error.stderr).strip().splitlines() or ["it said nothing"])[-1]
        if ref and ("invalid reference" in said or "not a commit" in said):
            raise _no_such(template, ref) from error
        raise DependencyUnreachable(
            f"git cannot fetch {template}: {said}",
            fix="is the address right, and may you read it?",
        ) from error
    except (CopierError, ValueError) as error:
        if ref and "Unknown revision" in str(error):
            raise _no_such(template, ref) from error
        raise UsageError(f"copier: {error}") from error


def _no_such(template: str, ref: str) -> UsageError:
    return UsageError(
        f"{template} has no tag or commit {ref}", fix=f"git ls-remote --tags {template} lists them"
    )


def _check_git(*, identity: bool) -> None:
    if shutil.which("git") is None:
        raise ConfigurationError("git is not on PATH", fix="install it; everything here needs it")
    if identity and not _knows_who_commits():
        raise ConfigurationError(
            "git does not know who commits",
            fix="git config --global user.name NAME; git config --global user.email ADDRESS",
        )


def _knows_who_commits() -> bool:
    command = ["git", "var", "GIT_AUTHOR_IDENT"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _check_unused(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UsageError(
            f"{path} is there already and not empty", fix="name a folder that is not there yet"
        )


def _checkout() -> Path:
    """The root of the checkout that we are in."""
    done = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False
    )
    root = Path(done.stdout.strip())
    if done.returncode or not (root / _TEMPLATE).is_file():
        raise UsageError(
            "this folder is in no checkout of Espalier, and a program carries no template",
            fix="name one by --template URL_OR_PATH",
        )
    return root


def _has_version(folder: Path) -> bool:
    """Whether copier would find a release among the tags."""
    tags = _git("tag", at=folder).splitlines()
    return any(re.fullmatch(r"v?\d+(\.\d+)*", tag) for tag in tags)


def _commit(folder: Path, message: str) -> None:
    _git("init", "--quiet", "--initial-branch=main", at=folder)
    # Also what a person's own ignore file leaves out everywhere.
    _git("-c", "core.excludesFile=", "add", "--all", at=folder)
    _git("commit", "--quiet", "--no-verify", f"--message={message}", at=folder)


def _git(*arguments: str, at: Path | None = None) -> str:
    # Started by a hook of git, it would be told of another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_DIR")}
    done = subprocess.run(
        ["git", *arguments], cwd=at, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigurationError(f"git {arguments[0]} in {at or Path.cwd()}: {said}")
    return done.stdout.strip()


def _answer(key: str, folder: Path = Path()) -> str:
    """One of the values that copier keeps."""
    for line in (folder / ANSWERS).read_text(encoding="utf-8").splitlines():
        name, found, value = line.partition(": ")
        if found and name == key:
            return value.strip("'\"")
    raise UsageError(f"{ANSWERS} has no {key}", fix="take the one that was committed")
