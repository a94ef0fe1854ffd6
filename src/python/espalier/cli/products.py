"""The option that names an ML product."""

from __future__ import annotations

import argparse

from espalier import settings


def add_project(parser: argparse.ArgumentParser, *, text: str = "the ML product") -> None:
    """Add `--project`, which may be left out where there is one product, or the first is meant."""
    parser.add_argument(
        "--project",
        metavar="NAME",
        # Read only when it is not given; argparse hands a default that is text to the type.
        default="",
        type=lambda name: name or settings.product_names()[0],
        help=f"{text}; default: the first of ESPALIER_PRODUCTS",
    )
