"""The wheel, unpacked: what it holds, what it asks for, and that it predicts by itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import grpc
import pytest
from google import protobuf
from packaging.requirements import Requirement

CONTRACT = "espalier/prediction/v1"
# All that it asks for, and the one library that grpcio asks for.
LIBRARIES = ("grpc", "google", "typing_extensions")
PROGRAM = """
import json, sys

class OnlyThese:
    known = {*sys.stdlib_module_names, "espalier", "espalier_client", *sys.argv[2:]}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.known:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, OnlyThese())
from espalier_client import Client
with Client(sys.argv[1], timeout=60) as client:
    answer = client.predict("u0001")
ours = [m.__file__ for n, m in sys.modules.items() if n.startswith("espalier")]
print(json.dumps({"entity": answer.entity_id, "ours": list(filter(None, ours))}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    [wheel] = Path.cwd().glob("espalier_client-*-py3-none-any.whl")
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_holds_the_client_and_the_contract_alone(unpacked):
    files = (path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file())
    found = {path.as_posix() for path in files if not path.parts[0].endswith(".dist-info")}
    assert f"{CONTRACT}/prediction_pb2.py" in found
    assert f"{CONTRACT}/prediction_pb2.pyi" in found
    assert "espalier_client/py.typed" in found
    assert all(name.startswith((f"{CONTRACT}/", "espalier_client/")) for name in found)
    assert not [name for name in found if name.endswith("_test.py")]


def test_it_asks_for_what_the_generated_code_does(unpacked):
    [metadata] = unpacked.glob("*.dist-info/METADATA")
    asked = re.findall(r"^Requires-Dist: (.*)", metadata.read_text(), re.MULTILINE)
    oldest = {
        r.name: next(s.version for s in r.specifier if s.operator == ">=")
        for r in map(Requirement, asked)
    }
    assert set(oldest) == {"grpcio", "protobuf", "googleapis-common-protos"}
    messages = (unpacked / CONTRACT / "prediction_pb2.py").read_text()
    service = (unpacked / CONTRACT / "prediction_pb2_grpc.py").read_text()
    assert f"# Protobuf Python Version: {oldest['protobuf']}\n" in messages
    assert f"GRPC_GENERATED_VERSION = '{oldest['grpcio']}'\n" in service


def test_it_predicts_with_nothing_else_of_ours(unpacked, server, tmp_path):
    libraries = {str(Path(grpc.__file__).parents[1]), str(Path(protobuf.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.grpc_address, *LIBRARIES],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(unpacked), *sorted(libraries)])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["entity"] == "u0001"
    assert all(Path(file).is_relative_to(unpacked) for file in told["ours"])
