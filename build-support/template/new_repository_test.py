"""A repository made of this one as it stands, and brought from one tag to the next."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.authoring import checkout
from espalier.processes import python_environment
from template.kept import fits, kept

HERE = Path().absolute()
PARTS = (
    *(".ci", ".env.example", ".envrc", ".github", ".gitignore", ".pc_env", "3rdparty", "BUILD"),
    *("LICENSE", "README.md", "build-support", "copier.yml", "data", "deploy", "docs", "examples"),
    *("feature_repo", "flake.lock", "flake.nix", "mkdocs.yml", "pants", "pants.ci.toml"),
    *("pants.toml", "protos", "pyproject.toml", "src", "{{_copier_conf.answers_file}}.jinja"),
)
# Of the checkout, and of Pants' sandbox: what is made, not committed.
NOT_COMMITTED = shutil.ignore_patterns("__pycache__", "*_pb2*.py*", "month_*", "node_modules")
# The repository's own modules, by their folder.
OURS = ("src/python", "build-support", "feature_repo", "examples", "protos")
WRITTEN = ".copier-answers.yml"
CLASS = '\n\nclass FareRefused(EspalierError):\n    """Too dear."""\n'


def run(*command: object, at: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=at, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def git(*arguments: str, at: Path) -> str:
    return run("git", *arguments, at=at).stdout.strip()


def commit(at: Path, message: str) -> None:
    git("add", "--all", at=at)
    git("commit", "--quiet", "--message", message, at=at)


def espalier(*arguments: object, at: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "espalier.cli.main", *arguments, at=at, code=code)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Git, copier and our command as somebody's who has configured nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "Somebody")
            patch.setenv(f"GIT_{who}_EMAIL", "somebody@example.com")
        for name, value in python_environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository as a template with one tag."""
    folder = tmp_path_factory.mktemp("template") / "espalier"
    folder.mkdir()
    for part in PARTS:
        if (HERE / part).is_dir():
            shutil.copytree(HERE / part, folder / part, ignore=NOT_COMMITTED)
        else:
            shutil.copy(HERE / part, folder / part)
    for example in ("benchmarks/one.py", "notebooks/one.py", "data/seeds/churn/month_000/a.csv"):
        (folder / example).parent.mkdir(parents=True, exist_ok=True)
        (folder / example).write_text("churn\n")
    git("init", "--quiet", "--initial-branch=main", at=folder)
    commit(folder, "one")
    git("tag", "v0.1.0", at=folder)
    return folder


@pytest.fixture(scope="module")
def made(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What new-repo makes of it, run in the checkout."""
    folder = tmp_path_factory.mktemp("made") / "rides"
    done = espalier("new-repo", folder, "--name", "taxi", at=template)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == (
        f"{folder} holds Espalier v0.1.0 for the product taxi, committed on main"
    )
    return folder


@pytest.fixture
def mine(made: Path, tmp_path: Path) -> Path:
    """A clone of it with edits of its own: a product, and changes to files of the platform."""
    folder = tmp_path / "mine"
    git("clone", "--quiet", str(made), str(folder), at=tmp_path)
    for path, text in checkout.with_product(folder, "taxi").items():
        (folder / path).write_text(text)
    product = folder / "src/python/taxi/project.py"
    product.parent.mkdir()
    product.write_text("# churn of our own drivers\n")
    errors = folder / "src/python/espalier/errors.py"
    errors.write_text(errors.read_text() + CLASS)
    commit(folder, "ours")
    return folder


def files(folder: Path) -> list[str]:
    return git("ls-files", at=folder).splitlines()


def test_the_files_that_go_over_are_those_that_the_list_leaves(template: Path, made: Path):
    put_in = template / "build-support/template/files"
    own = {str(p.relative_to(put_in)) for p in put_in.rglob("*") if p.is_file()}
    over = {
        path
        for path in kept(template)
        if not path.endswith(".jinja") and not path.startswith(".git/")
    }
    assert own | over | {WRITTEN} == set(files(made))
    assert len(over) > 400


def test_it_is_committed_and_knows_where_it_comes_from(template: Path, made: Path):
    assert git("status", "--porcelain", "--branch", at=made) == "## main"
    assert git("log", "--format=%s", at=made) == "Espalier v0.1.0, for taxi"
    _comment, *answers = (made / WRITTEN).read_text().splitlines()
    assert answers == ["_commit: v0.1.0", f"_src_path: {template}", "product: taxi"]
    assert os.access(made / "pants", os.X_OK)
    assert os.access(made / ".ci/run", os.X_OK)


def test_nothing_tells_of_the_worked_example(made: Path):
    told = [path for path in files(made) if "churn" in path.lower()]
    for path in files(made):
        content = (made / path).read_bytes().lower()
        if b"churn" in content or b"not in a new repository: " in content:
            told.append(path)
    assert told == []


def test_what_is_run_has_the_products_name(made: Path):
    for path, text in {
        "README.md": "\n# taxi\n",
        "deploy/docker/compose.yaml": "image: espalier/taxi-server\n",
        "deploy/k8s/base/server.yaml": "image: espalier/taxi-server\n",
        "deploy/process-compose.yaml": "dist/taxi-server.pex ${ESPALIER_SERVER_OPTIONS:-}\n",
        "deploy/prometheus/targets.example.json": '"project": "taxi"',
        "deploy/stack/programs": " taxi-server.pex;",
        "docs/runbooks.md": " --project taxi",
    }.items():
        assert text in "\n" + (made / path).read_text(), path
    assert checkout.products(made) == []
    assert "[[deployment]]" not in (made / checkout.DEPLOYMENTS).read_text()


def test_every_module_that_is_imported_is_there(made: Path):
    modules = {
        Path(path).relative_to(root).with_suffix("").as_posix().replace("/", ".")
        for path in files(made)
        for root in OURS
        if path.startswith(f"{root}/") and path.endswith(".py")
    }
    first = {module.partition(".")[0] for module in modules} | {"template", "stack", "docblocks"}
    lacking = []
    for path in (path for path in files(made) if path.endswith(".py")):
        for node in ast.walk(ast.parse((made / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            lacking += [
                f"{path}: {name}"
                for name in names
                if name.partition(".")[0] in first and not is_there(name, modules)
            ]
    assert lacking == []


def is_there(name: str, modules: set[str]) -> bool:
    # Made from the contract when it is built.
    if name.startswith(("espalier.prediction", "inference")):
        return True
    return name in modules or any(module.startswith(f"{name}.") for module in modules)


def test_every_build_file_names_what_is_there(made: Path):
    paths = files(made)
    builds = {path.rpartition("/")[0]: made / path for path in paths if Path(path).name == "BUILD"}
    for folder, build in builds.items():
        text = build.read_text()
        inside = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(folder)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "overrides":
                for key in getattr(node.value, "keys", []):
                    names = ast.literal_eval(key)
                    for name in (names,) if isinstance(names, str) else names:
                        assert name in inside, f"{build}: {name}"
            if isinstance(node, ast.Constant) and str(node.value).startswith("//"):
                where, _, target = str(node.value)[2:].partition(":")
                known = where in paths or where in builds or "*" in where
                assert known or fits(where, "src/python/espalier/*"), f"{build}: {node.value!r}"
                if where in builds and target and "#" not in target:
                    named = f'"{target}"' in builds[where].read_text()
                    assert named or where.endswith(f"/{target}"), f"{build}: {node.value!r}"
        for kind, pattern in {"python_tests": "*_test.py", "python_test_utils": "*.py"}.items():
            if f"{kind}(" in text:
                assert any(fits(name, pattern) for name in inside), f"{build}: {kind}"


def test_every_link_leads_somewhere(made: Path):
    lost = []
    for path in (path for path in files(made) if path.endswith(".md")):
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (made / path).read_text()):
            if not (made / path).parent.joinpath(link).exists():
                lost += [f"{path}: {link}"]
    assert lost == []


@pytest.fixture(scope="module")
def next_versions(template: Path, made: Path) -> None:
    """Two more tags: what came after, and what is also changed where `mine` is."""
    errors = template / "src/python/espalier/errors.py"
    errors.write_text(errors.read_text().replace('"""One error tree', '"""The one error tree', 1))
    stack = template / "deploy/process-compose.yaml"
    stack.write_text(stack.read_text().replace("--project churn", "--project churn --again"))
    (template / "docs/development.md").unlink()
    (template / "docs/added.md").write_text("`churn-train.pex` now sings.\n")
    commit(template, "two")
    git("tag", "v0.2.0", at=template)
    errors.write_text(errors.read_text() + CLASS.replace("Too dear", "Too cheap"))
    commit(template, "three")
    git("tag", "v0.3.0", at=template)


def test_the_next_version_comes_in_and_local_edits_stay(mine: Path, next_versions: None):
    ours = ("src/python/taxi/project.py", str(checkout.PRODUCTS), "pyproject.toml")
    before = {path: (mine / path).read_text() for path in ours}
    done = espalier("update-repo", "--ref", "v0.2.0", at=mine)
    assert done.stderr == ""
    assert done.stdout == "v0.1.0 -> v0.2.0: 5 files changed; see them by git diff, then commit\n"
    errors = (mine / "src/python/espalier/errors.py").read_text()
    assert errors.startswith('"""The one error tree')
    assert errors.endswith(CLASS)
    assert "fill --project taxi --again\n" in (mine / "deploy/process-compose.yaml").read_text()
    assert (mine / "docs/added.md").read_text() == "`taxi-train.pex` now sings.\n"
    assert not (mine / "docs/development.md").exists()
    assert {path: (mine / path).read_text() for path in ours} == before
    assert (mine / checkout.DEPLOYMENTS).read_text().count("[[deployment]]") == 6
    commit(mine, "two")
    again = espalier("update-repo", "--ref", "v0.2.0", at=mine)
    assert again.stdout == "v0.2.0 is what is here already\n"


def test_what_contradicts_local_edits_is_marked_and_neither_is_lost(
    mine: Path, next_versions: None
):
    done = espalier("update-repo", at=mine, code=1)
    assert done.stdout.startswith("v0.1.0 -> v0.3.0: ")
    assert done.stderr == (
        "espalier: both sides changed the same lines of src/python/espalier/errors.py; choose "
        "between the lines that git marked, git add them, then commit\n"
    )
    errors = (mine / "src/python/espalier/errors.py").read_text()
    assert errors.startswith('"""The one error tree')
    assert re.search(
        r"<<<<<<< before updating\n.*Too dear.*\n=+\n.*Too cheap.*\n>>>>>>> after updating\n",
        errors,
        re.DOTALL,
    )
    status = git("status", "--porcelain", "--", "src/python/espalier/errors.py", at=mine)
    assert status == "UU src/python/espalier/errors.py"
    assert (mine / "docs/added.md").exists()


def test_copiers_own_command_does_the_same(mine: Path, next_versions: None, tmp_path: Path):
    other = tmp_path / "other"
    git("clone", "--quiet", str(mine), str(other), at=tmp_path)
    espalier("update-repo", "--ref", "v0.2.0", at=mine)
    copier = [sys.executable, "-m", "copier", "update", "--defaults", "--vcs-ref", "v0.2.0"]
    # Without trust it runs no task, so it refuses.
    assert "--trust" in run(*copier, at=other, code=4).stderr
    run(*copier, "--trust", at=other)
    for folder in (mine, other):
        commit(folder, "two")
    assert git("rev-parse", "HEAD^{tree}", at=mine) == git("rev-parse", "HEAD^{tree}", at=other)
