"""A registry that is down or hangs, and new models that are broken, while callers never stop."""

from __future__ import annotations

import hashlib
import signal
import socket
from contextlib import ExitStack

from espalier.registry.manifest import MANIFEST, ONNX
from espalier.serving.testing import (
    ENTITIES,
    FEATURES,
    TYPES,
    running_registry,
    write_model,
)
from espalier.serving.testing_load import unaccounted, under_load
from espalier.serving.testing_server import serving

FAILURES = 'espalier_model_load_failures_total{model="churn"}'
SLOPES = {"1": 0.01, "2": -0.01}


def failures_more_than(running, before):
    return lambda: running.metric(FAILURES) > before


def in_force(running, version):
    return running.metric(f'espalier_model_info{{name="churn",version="{version}"}}') == 1


def test_a_registry_that_comes_late_and_leaves_in_between(database, models, tmp_path, port):
    with ExitStack() as stack:
        uri = f"http://127.0.0.1:{port}"
        running = stack.enter_context(serving(database.dsn, uri, tmp_path))
        running.until(running.ready_text)
        load = stack.enter_context(under_load(running, slopes=SLOPES))
        load.until(lambda: load.counts().refused["UNAVAILABLE"] > 300)
        assert load.counts().served == 0
        with running_registry(port) as registry:
            registry.publish("1", models / "one")
            load.until_served(200)
        before = load.counts()
        load.until(failures_more_than(running, running.metric(FAILURES)))
        load.until_served(200)
        assert running.is_ready()
        with running_registry(port) as registry:
            registry.publish("1", models / "one")
            registry.publish("2", models / "two")
            load.until(lambda: in_force(running, "2"))
            load.until_served(200)
        # With a model in force nobody is refused, whether there is a registry or not.
        assert not load.since(before).refused
        load.stop()
        running.until(lambda: unaccounted(running) == 0)
    load.tell("registry down at the start, then in the run")
    assert load.counts().lost == ()
    assert set(load.counts().refused) == {"UNAVAILABLE", "HTTP 503"}


def test_a_registry_that_hangs_holds_up_neither_callers_nor_the_end(
    database, models, tmp_path, port
):
    with ExitStack() as stack:
        uri = f"http://127.0.0.1:{port}"
        with running_registry(port) as registry:
            registry.publish("1", models / "one")
            running = stack.enter_context(serving(database.dsn, uri, tmp_path))
            running.until(running.is_ready)
        # It lets the kernel take connections, and says nothing.
        with socket.create_server(("127.0.0.1", port)) as silent:
            with under_load(running) as load:
                asked, _ = silent.accept()
                load.until_served(300)
            load.tell("registry hangs")
            assert load.counts().lost == ()
            assert not load.counts().refused
            running.until(lambda: unaccounted(running) == 0)
            running.process.send_signal(signal.SIGTERM)
            # Its client would wait for 30 s.
            assert running.process.wait(15) == 0
            asked.close()


def cut_off(folder):
    write_model(folder)
    path = folder / ONNX
    path.write_bytes(path.read_bytes()[:-7])


def no_model(folder):
    write_model(folder, digest=hashlib.sha256(b"no model").hexdigest())
    (folder / ONNX).write_bytes(b"no model")


def no_file(folder):
    write_model(folder)
    (folder / ONNX).unlink()


def no_manifest(folder):
    write_model(folder)
    (folder / MANIFEST).write_text("{")


def other_scores(folder):
    write_model(folder, golden_scores=(0.9,) * len(ENTITIES[::50]))


def other_features(folder):
    write_model(folder, features=("shoe_size", *FEATURES[1:]), feature_types=TYPES)


def test_broken_new_models_leave_the_old_one_in_force(database, registry, models, tmp_path):
    registry.publish("1", models / "one")
    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        with under_load(running, slopes=SLOPES) as load:
            load.until_served(100)
            makers = cut_off, no_model, no_file, no_manifest, other_scores, other_features
            for number, make in enumerate(makers):
                before = running.metric(FAILURES)
                make(tmp_path / make.__name__)
                registry.publish(f"10{number}", tmp_path / make.__name__)
                load.until(failures_more_than(running, before))
                load.until_served(50)
                assert in_force(running, "1"), make.__name__
            # A sound one is taken after all of them.
            registry.publish("2", models / "two")
            load.until(lambda: in_force(running, "2"))
            load.until_served(100)
        load.tell("six broken models, then a sound one")
        assert load.counts().lost == ()
        assert not load.counts().refused
        running.until(lambda: unaccounted(running) == 0)
    registry.publish("1", models / "one")
