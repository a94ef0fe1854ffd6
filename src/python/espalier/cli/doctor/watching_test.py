"""The checks of what watches: a real exporter, and programs that are none, hang or are away."""

from __future__ import annotations

import pytest

from espalier.cli.doctor.testing import answering, found, hanging, subject
from espalier.monitoring.exporter import exporting
from espalier.postgres import embedded

ADDRESS = {"exporter": "ESPALIER_EXPORTER_ADDRESS"}
URL = {
    "prometheus": "ESPALIER_PROMETHEUS_URL",
    "grafana": "ESPALIER_GRAFANA_URL",
    "prefect": "PREFECT_API_URL",
}


def env(name: str, address: str) -> dict[str, str]:
    return {ADDRESS[name]: address} if name in ADDRESS else {URL[name]: f"http://{address}"}


@pytest.mark.parametrize("name", [*ADDRESS, *URL])
@pytest.mark.parametrize("kind", ["away", "hanging", "another", "broken"])
def test_one_that_does_not_answer_as_it_should(tmp_path, name, kind):
    with hanging() as silent, answering() as other, answering(500) as broken:
        address = {
            "away": "127.0.0.1:1",
            "hanging": f"127.0.0.1:{silent}",
            "another": other,
            "broken": broken,
        }[kind]
        finding = found(subject(tmp_path, env=env(name, address)), name)
    # Grafana is optional.
    assert finding.state == ("note" if name == "grafana" else "fail")
    assert address in finding.what
    assert finding.fix


def test_an_exporter_that_reaches_its_database_or_not(tmp_path):
    with embedded.temporary() as server, exporting(server.dsn(), "127.0.0.1:0") as running:
        asked = subject(tmp_path, env=env("exporter", running.address))
        assert found(asked, "exporter").state == "ok"
    with exporting(f"postgresql:///?host={tmp_path}", "127.0.0.1:0") as running:
        finding = found(subject(tmp_path, env=env("exporter", running.address)), "exporter")
    assert finding.state == "fail"
    assert finding.what.endswith("does not reach the database")


def test_without_prefect_nothing_is_wrong(tmp_path):
    finding = found(subject(tmp_path), "prefect")
    assert finding.state == "note"
    assert "PREFECT_API_URL is not set" in finding.what


def test_a_server_on_all_addresses_is_asked_here(tmp_path):
    with answering(200, "espalier_exporter_up 1.0\n") as address:
        port = address.rpartition(":")[2]
        finding = found(subject(tmp_path, env=env("exporter", f"0.0.0.0:{port}")), "exporter")
    assert finding.state == "ok"
