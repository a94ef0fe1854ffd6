from __future__ import annotations

import pytest

from template.build_files import without_absent
from template.kept import is_excluded
from template.render import renamed, unmarked

PATTERNS = ["/data/seeds", "/src/*_test.py", "/src/testing*.py", "!/src/one_test.py", "/x.yml"]


@pytest.mark.parametrize(
    ("path", "excluded"),
    [
        ("data/seeds/churn/a.csv", True),
        ("data/README.md", False),
        ("data/seeds2", False),
        ("src/two_test.py", True),
        ("src/one_test.py", False),
        ("src/inside/two_test.py", False),
        ("src/testing_more.py", True),
        ("x.yml", True),
        ("inside/x.yml", False),
        ("xxyml", False),
    ],
)
def test_the_last_pattern_that_fits_decides(path, excluded):
    assert is_excluded(path, PATTERNS) is excluded


BUILD = """\
python_sources(
    sources=["*.py", "!*_test.py", "!conftest.py"],
    overrides={
        # Here.
        "here.py": {"dependencies": ["./gone.py", "./other.py"]},
        # Gone.
        # All of it.
        "gone.py": {
            "dependencies": ["//data:churn"],
        },
    },
)

# It names the product.
_PROGRAM = ["//src/python/churn:churn", "./here.py"]

python_tests(
    name="tests",
    dependencies=[
        # The batches.
        "//data:churn",
    ],
    overrides={
        ("a_test.py", "b_test.py"): {"timeout": 600},
        ("b_test.py", "c_test.py"): {"timeout": 900},
    },
)

# Nothing is left of it.
python_test_utils(name="test_utils", dependencies=[*_PROGRAM, "//data:churn"])

files(name="churn", sources=["seeds/churn/*.csv"])
files(name="both", sources=["x.yaml", "churn.yaml"])
"""

LEFT = """\
python_sources(
    sources=["*.py", "!*_test.py", "!conftest.py"],
    overrides={
        # Here.
        "here.py": {"dependencies": ["./other.py"]},
    },
)

python_tests(
    name="tests",
    overrides={
        "a_test.py": {"timeout": 600},
    },
)

files(name="both", sources=["x.yaml"])
"""


def test_a_build_file_says_nothing_of_what_is_absent():
    names = ("here.py", "other.py", "a_test.py", "x.yaml", "deeper/b_test.py", "deeper/conftest.py")
    paths = {f"src/{name}" for name in names} | {"b_test.py"}
    assert without_absent(BUILD, "src", paths, "churn") == LEFT
    assert without_absent(LEFT, "src", paths, "churn") == LEFT


def test_a_build_file_of_which_nothing_is_left_is_empty():
    assert without_absent("python_tests()\n", "src", set(), "churn") == ""
    assert without_absent("python_tests()\n", "", {"a_test.py"}, "churn") == "python_tests()\n"


def test_what_is_marked_does_not_go_over():
    text = "a\n  # not in a new repository: from here\nb\n# not in a new repository: to here\nc\n"
    assert unmarked(text, "x") == "a\nc\n"
    for line in (1, 3):
        lines = text.splitlines(keepends=True)
        del lines[line]
        with pytest.raises(SystemExit, match="x: marks of what does not go over"):
            unmarked("".join(lines), "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("churn-train.pex --as-of", "taxi_rides-train.pex --as-of"),
        ("Churn of CHURN", "Taxi_rides of TAXI_RIDES"),
        # What is drawn stays where it is.
        ("| churn.*      | x", "| taxi_rides.* | x"),
        ("│ churn.*            │", "│ taxi_rides.*       │"),
        ("│ churn.* │", "│ taxi_rides.* │"),
    ],
)
def test_the_product_takes_the_examples_place(text, expected):
    assert renamed(text, "taxi_rides") == expected
