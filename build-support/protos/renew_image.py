"""Renews protos/image.binpb, the contract that changes to protos/ are compared with.

    ./pants run build-support/protos/renew_image.py

An incompatible change is refused: it belongs into a new package version beside the old one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from protos import buf

IMAGE = "image.binpb"


def renew(folder: Path) -> int:
    """Write the folder's image anew unless that breaks the one there is; returns an exit code.

    The code is 0 when the image is current, 1 when buf refuses the files (each violation is
    printed, and the image is left as it was), 2 when buf finds nothing to work with.
    """
    compare = [("breaking", "--against", IMAGE)] if (folder / IMAGE).exists() else []
    for arguments in [*compare, (*buf.BUILD, IMAGE)]:
        done = buf.run(folder, *arguments)
        if done.returncode:
            print((done.stdout + done.stderr).rstrip(), file=sys.stderr)
            print(f"renew_image: buf {arguments[0]} refused; {IMAGE} is as before", file=sys.stderr)
            return 1 if done.returncode == 100 else 2
    print(f"renew_image: {folder / IMAGE}: {(folder / IMAGE).stat().st_size} bytes")
    return 0


def main(arguments: list[str]) -> int:
    """Renew the image of the folder named, or of protos/ in the working directory."""
    if len(arguments) > 1:
        print("renew_image: give one folder, or none for protos", file=sys.stderr)
        return 2
    folder = Path(*arguments or ["protos"])
    if not (folder / "buf.yaml").is_file():
        print(f"renew_image: no {folder}/buf.yaml: run at the repository's root", file=sys.stderr)
        return 2
    return renew(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
