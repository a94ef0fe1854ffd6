"""What `new-repo` and `update-repo` refuse, each in one line; nothing is left behind."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest

from espalier.cli import new_repo
from espalier.errors import ConfigurationError, DependencyUnreachable, EspalierError, UsageError

SETTINGS = """\
product:
  type: str
"""


def git(*arguments: str, at: Path) -> None:
    subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True)


def commit(at: Path) -> None:
    git("add", "--all", at=at)
    git("commit", "--quiet", "--message=any", at=at)


def options(path: Path, **given: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    new_repo.add_new_arguments(parser)
    asked = parser.parse_args([str(path), "--name", "taxi"])
    vars(asked).update(given)
    return asked


@pytest.fixture(autouse=True)
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.com")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """The smallest template, with one tag."""
    folder = tmp_path / "template"
    folder.mkdir()
    (folder / "copier.yml").write_text(SETTINGS)
    (folder / "told.txt.jinja").write_text("of {{ product }}\n")
    answers = folder / "{{_copier_conf.answers_file}}.jinja"
    answers.write_text("# by copier\n{{ _copier_answers|to_nice_yaml -}}\n")
    git("init", "--quiet", "--initial-branch=main", at=folder)
    commit(folder)
    git("tag", "v1.0.0", at=folder)
    return folder


def refused(asked: argparse.Namespace, kind: type[EspalierError]) -> str:
    parent = asked.path.parent
    before = sorted(parent.rglob("*"))
    with pytest.raises(kind) as error:
        new_repo.run_new(asked)
    assert sorted(parent.rglob("*")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_is_made_in_a_folder_that_is_empty_or_not_there(template, tmp_path):
    for name in ("there", "not_there"):
        path = tmp_path / "made" / name
        if name == "there":
            path.mkdir(parents=True)
        assert new_repo.run_new(options(path, template=str(template))) == 0
        assert (path / "told.txt").read_text() == "of taxi\n"
        assert "_commit: v1.0.0\n" in (path / new_repo.ANSWERS).read_text()
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["not_there", "there"]


def test_a_folder_in_use_is_refused(template, tmp_path):
    path = tmp_path / "used" / "rides"
    path.mkdir(parents=True)
    (path / "mine.txt").touch()
    said = refused(options(path, template=str(template)), UsageError)
    assert said == f"{path} is there already and not empty; name a folder that is not there yet"


@pytest.mark.parametrize("ref", ["v9.9.9", "--upload-pack=x"])
def test_a_tag_that_is_not_there_is_refused(template, tmp_path, ref):
    path = tmp_path / "new" / "rides"
    path.parent.mkdir()
    said = refused(options(path, template=str(template), ref=ref), UsageError)
    assert said.startswith(f"{template} has no tag or commit {ref}; git ls-remote --tags ")


def test_without_git_nothing_is_made(template, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(options(tmp_path / "rides", template=str(template)), ConfigurationError)
    assert said.startswith("git is not on PATH; ")


def test_git_must_know_who_commits(template, tmp_path, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "")
    said = refused(options(tmp_path / "rides", template=str(template)), ConfigurationError)
    assert said.startswith("git does not know who commits; git config --global user.name")


def test_away_from_a_checkout_a_template_must_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(options(tmp_path / "rides"), UsageError) == (
        "this folder is in no checkout of Espalier, and a program carries no template; name one by "
        "--template URL_OR_PATH"
    )


def test_what_is_no_template_is_refused(tmp_path):
    path = tmp_path / "new" / "rides"
    path.parent.mkdir()
    said = refused(options(path, template=str(tmp_path)), UsageError)
    assert said.startswith(
        f"{tmp_path} is no template: the root of a git repository with copier.yml"
    )


def test_an_address_where_nothing_is_cannot_be_fetched(tmp_path):
    path = tmp_path / "new" / "rides"
    path.parent.mkdir()
    address = f"file://{tmp_path}/nowhere.git"
    said = refused(options(path, template=address), DependencyUnreachable)
    assert said.startswith(f"git cannot fetch {address}: ")


def test_a_name_that_cannot_be_a_products_is_refused(template, tmp_path):
    path = tmp_path / "new" / "rides"
    path.parent.mkdir()
    asked = options(path, template=str(template), name="Taxi-1")
    assert refused(asked, UsageError).startswith("'Taxi-1' cannot be a product's name")


def test_an_update_needs_a_clean_repository_that_new_repo_made(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = argparse.Namespace(ref=None)
    with pytest.raises(UsageError, match=r"there is no \.copier-answers\.yml here; run this at"):
        new_repo.run_update(asked)
    path = tmp_path / "rides"
    new_repo.run_new(options(path, template=str(template)))
    monkeypatch.chdir(path)
    (path / "told.txt").write_text("of mine\n")
    with pytest.raises(UsageError, match="1 files have changes that are not committed; commit or"):
        new_repo.run_update(asked)
    assert (path / "told.txt").read_text() == "of mine\n"


def test_an_older_version_is_refused_and_a_missing_one(template, tmp_path, monkeypatch):
    (template / "more.txt").touch()
    commit(template)
    git("tag", "v1.1.0", at=template)
    path = tmp_path / "rides"
    new_repo.run_new(options(path, template=str(template)))
    monkeypatch.chdir(path)
    with pytest.raises(UsageError, match=r"downgrading from 1\.1\.0 to 1\.0\.0"):
        new_repo.run_update(argparse.Namespace(ref="v1.0.0"))
    with pytest.raises(UsageError, match="has no tag or commit v9"):
        new_repo.run_update(argparse.Namespace(ref="v9"))
    template.rename(tmp_path / "moved")
    with pytest.raises(DependencyUnreachable, match=f"the template {template} of .* is not on"):
        new_repo.run_update(argparse.Namespace(ref=None))
    subprocess.run(["git", "diff", "--exit-code"], cwd=path, check=True, capture_output=True)
