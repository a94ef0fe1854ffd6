"""The page at `/` of a real server in a real browser, as a person uses it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from espalier.serving.testing import FEATURES, expected_score, features_of, running_registry
from espalier.serving.testing_browser import Tab, browser
from espalier.serving.testing_products import CLASSES, price, probabilities
from espalier.serving.testing_server import serving
from espalier.serving.tokens import new_token

# Each fetch of these paths waits until it is let go.
HOLD = """
const held = [], real = fetch;
fetch = async (path, ...rest) => {
  if (["models", "explain"].includes(path)) await new Promise(go => held.push(go));
  return real(path, ...rest);
};
"""
# A table's rows as an object: what stands in its first column names what stands in the second.
ROWS = (
    "Object.fromEntries([...document.querySelectorAll('{} tr')].map("
    "r => [...r.cells].map(c => c.textContent)))"
)
ANSWER = "document.querySelector('#answer').textContent"
DONE = "!['', '...'].includes(document.querySelector('#answer').textContent)"


@pytest.fixture
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


def rows(tab: Tab, table: str) -> dict[str, str]:
    found: dict[str, str] = tab.run(ROWS.format(table))
    return found


def ask(tab: Tab, entity: str) -> str:
    tab.type("#entity", entity)
    tab.click("#form button")
    tab.until(DONE)
    answer: str = tab.run(ANSWER)
    return answer


def test_it_shows_what_is_served_and_asks_nobody_else(server, tab):
    url = str(server.http.base_url)
    tab.open(url + "/")
    tab.until("document.querySelectorAll('#model tr').length")
    assert tab.run("document.title") == "churn"
    assert "buy nothing in the next 90 days" in tab.run("document.body.innerText")
    told = rows(tab, "#model")
    assert told["version"] == "1"
    assert told["features"].split(", ") == list(FEATURES)
    assert told["metric roc_auc"] == "0.75"
    assert told["slope"] == "0.01"
    tab.until("document.querySelectorAll('#live tr').length")
    assert rows(tab, "#health") == {"ready": "yes"}
    assert rows(tab, "#live")["workers"] == "1"
    assert {urlsplit(asked).netloc for asked in tab.requests} == {urlsplit(url).netloc}
    assert tab.complaints == []


def test_the_rates_move(server, tab):
    tab.open(f"{server.http.base_url}/")
    rate = f"Number(({ROWS.format('#live')})['requests a second'])"

    def asked_and_seen() -> bool:
        server.http.post("/predict", json={"user_id": "u0001"})
        return bool(tab.run(f"{rate} > 0"))

    server.until(asked_and_seen)
    # And they fall again when nobody asks.
    tab.until(f"{rate} === 0")


def test_the_form_predicts_and_shows_the_features(server, tab):
    tab.open(f"{server.http.base_url}/")
    tab.until("document.querySelectorAll('#model tr').length")
    assert tab.run("document.querySelector('#form label').textContent").startswith("user_id")
    answer = ask(tab, "u0200")
    assert f"score {expected_score('u0200', 0.01):.4f}" in answer
    assert "OK, by MODEL, version 1" in answer
    shown = rows(tab, "#features")
    assert shown.pop("facts of") == "1998-06-30T00:00:00Z"
    assert {name: float(value) for name, value in shown.items()} == dict(
        zip(FEATURES, features_of("u0200"), strict=True)
    )
    assert tab.complaints == []
    # The same by the Enter key, and what was shown before is gone.
    tab.type("#entity", "nobody")
    tab.press_enter()
    tab.until(f"{ANSWER}.includes('no features for entity')")
    assert "'nobody'" in tab.run(ANSWER)
    assert rows(tab, "#features") == {}


def test_who_asks_before_the_page_knows_its_products_is_answered_too(server, tab):
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=HOLD)
    tab.open(f"{server.http.base_url}/")
    tab.type("#entity", "u0200")
    tab.press_enter()
    tab.until("held.length === 2")
    tab.run("held.shift()()")
    tab.until("document.title === 'churn'")
    tab.run("held.forEach(go => go())")
    tab.until(DONE)
    assert f"score {expected_score('u0200', 0.01):.4f}" in tab.run(ANSWER)


def test_what_a_caller_types_never_becomes_markup(server, tab):
    tab.open(f"{server.http.base_url}/")
    answer = ask(tab, "<img src=x onerror=document.title='owned'>")
    assert "<img src=x" in answer
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert tab.run("document.title") != "owned"


def test_with_tokens_it_says_so_and_works_once_one_is_typed(dsn, registry, tmp_path, tab):
    token, line = new_token("desk")
    (tmp_path / "tokens").write_text(line + "\n")
    with serving(dsn, registry.uri, tmp_path, "--tokens", str(tmp_path / "tokens")) as running:
        running.until(running.is_ready)
        tab.open(f"{running.http.base_url}/")
        tab.until("document.querySelectorAll('#model tr').length")
        assert "token" in rows(tab, "#model")["not known"]
        assert "token" in ask(tab, "u0001")
        assert rows(tab, "#health")["ready"] == "yes"
        tab.type("#token", token)
        tab.press_enter()
        tab.until(f"({ROWS.format('#model')}).version === '1'")
        tab.until(f"({ROWS.format('#live')}).workers === '1'")
        assert "by MODEL, version 1" in ask(tab, "u0001")
        # It is kept nowhere.
        kept = "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
        assert tab.run(kept) == "{}"
        assert not any(token in asked for asked in tab.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_all_of_it(server, tab, scheme):
    tab.show_on(400, scheme=scheme)
    tab.open(f"{server.http.base_url}/")
    tab.until("document.querySelectorAll('#live tr').length")
    ask(tab, "u0200")
    assert tab.run("document.documentElement.scrollWidth") == 400
    outside = (
        "[...document.querySelectorAll('body *')]"
        ".filter(e => e.getBoundingClientRect().right > 400.5).map(e => e.outerHTML)"
    )
    assert tab.run(outside) == []
    colours = tab.run(
        "(s => [s.color, getComputedStyle(document.documentElement).colorScheme])"
        "(getComputedStyle(document.querySelector('h1')))"
    )
    assert colours == ["rgb(0, 0, 0)" if scheme == "light" else "rgb(255, 255, 255)", "light dark"]


def test_it_says_when_the_server_is_gone(dsn, registry, tmp_path, tab):
    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        tab.open(f"{running.http.base_url}/")
        tab.until(f"({ROWS.format('#health')}).ready === 'yes'")
    tab.until(f"({ROWS.format('#health')}).alive === 'no answer'")
    tab.until(f"({ROWS.format('#live')}).rates === 'no answer'")


def test_a_new_model_is_shown_without_loading_the_page_again(dsn, models, tmp_path, tab):
    with running_registry() as registry:
        registry.publish("1", models / "one")
        with serving(dsn, registry.uri, tmp_path) as running:
            running.until(running.is_ready)
            tab.open(f"{running.http.base_url}/")
            tab.until(f"({ROWS.format('#model')}).version === '1'")
            registry.publish("2", models / "two")
            tab.until(f"({ROWS.format('#model')}).version === '2'")


def choose(tab: Tab, product: str) -> None:
    """Choose a product as by the list's own keys and mouse, and wait until it is shown."""
    tab.run(
        f"(s => {{ s.value = {product!r}; s.dispatchEvent(new Event('change', {{bubbles: true}})); }})"
        "(document.querySelector('#product'))"
    )
    tab.until(f"document.title === {product!r}")


def test_with_one_product_there_is_nothing_to_choose(server, tab):
    tab.open(f"{server.http.base_url}/")
    tab.until("document.querySelectorAll('#model tr').length")
    assert tab.run("document.querySelector('#choice').checkVisibility()") is False
    ask(tab, "u0200")
    assert rows(tab, "#probabilities") == {}


def test_with_several_products_one_is_chosen(several, tab):
    running, _ = several
    tab.open(f"{running.http.base_url}/")
    tab.until("document.querySelectorAll('#model tr').length")
    assert tab.run("document.querySelector('#choice').checkVisibility()")
    assert tab.run("document.title") == "churn"
    assert f"score {expected_score('u0200', 0.01):.4f}" in ask(tab, "u0200")
    tab.until(f"({ROWS.format('#health')})['houses ready'] === 'yes'")
    choose(tab, "wine")
    # Nothing of the other product is left.
    assert tab.run(ANSWER) == ""
    assert tab.run("document.querySelector('#entity').value") == ""
    assert rows(tab, "#features") == {}
    tab.until(f"({ROWS.format('#model')}).task === 'multiclass'")
    told = rows(tab, "#model")
    assert told["classes"] == ", ".join(CLASSES)
    assert "threshold" not in told
    assert tab.run("document.querySelector('#form label').textContent").startswith("bottle")
    # The address names it, so that it can be kept and sent.
    assert tab.run("location.hash") == "#wine"
    tab.open(f"{running.http.base_url}/#houses")
    tab.until("document.title === 'houses'")
    assert tab.complaints == []


def test_classes_are_shown_by_name_with_their_probabilities(several, tab):
    running, _ = several
    tab.open(f"{running.http.base_url}/#wine")
    tab.until("document.title === 'wine'")
    tab.until("document.querySelectorAll('#model tr').length")
    found = dict(zip(CLASSES, probabilities("13"), strict=True))
    answer = ask(tab, "13")
    assert answer == f"barolo (probability {found['barolo']:.4f}, OK, by MODEL, version 1)"
    shown = rows(tab, "#probabilities")
    assert list(shown) == sorted(found, key=found.__getitem__, reverse=True)
    assert {name: float(text) for name, text in shown.items()} == pytest.approx(found, abs=1e-4)
    meters = "[...document.querySelectorAll('#probabilities meter')].map(m => m.value)"
    assert tab.run(meters) == pytest.approx(sorted(found.values(), reverse=True), abs=1e-5)
    assert tab.complaints == []
    # The browser itself tells of the 404.
    ask(tab, "1000")
    assert rows(tab, "#probabilities") == {}


def test_a_number_is_shown_as_such(several, tab):
    running, _ = several
    tab.open(f"{running.http.base_url}/#houses")
    tab.until("document.title === 'houses'")
    tab.until("document.querySelectorAll('#model tr').length")
    assert ask(tab, "h13") == f"{price('h13'):g} (OK, by MODEL, version 1)"
    assert tab.complaints == []


def test_several_products_fit_on_a_narrow_screen(several, tab):
    running, _ = several
    tab.show_on(400)
    tab.open(f"{running.http.base_url}/#wine")
    tab.until("document.title === 'wine'")
    tab.until("document.querySelectorAll('#live tr').length")
    ask(tab, "13")
    assert tab.run("document.documentElement.scrollWidth") == 400
