def ml_project(name, overrides={}, serve_with_sklearn=False, reader="wide_row"):
    """An ML product: its sources, its tests, and one program a flow plus the prediction server.

    serve_with_sklearn: let server and batch scoring carry scikit-learn, which a model without an
    ONNX form takes.

    reader: where the server can read features from: "wide_row" is our online store; "feast" adds
    Feast's SDK for any other one, which the server then takes by --feature-repo.

    The folder declares the product in project.py. Programs are NAME-ingest.pex and so on, each of
    one file that runs on any host with CPython 3.11.
    """
    python_sources(name=name, overrides=overrides)
    # The committed batches are compared with what the product declares.
    python_tests(name="tests", dependencies=[f"//data:{name}"])

    def program(kind, entry_point, args, dependencies):
        pex_binary(
            name=f"{name}-{kind}",
            output_path=f"{name}-{kind}.pex",
            entry_point=entry_point,
            args=[*args, f"--project={name}"],
            # The product is named by an argument, so no import leads to it.
            dependencies=[f"./project.py:{name}", *dependencies],
            # A flow's process becomes Prefect's engine by exec, which needs a real environment.
            execution_mode="venv",
            # Prefect's worker hands its environment on to the programs it starts.
            strip_pex_env=False,
        )

    scoring = _server_carries(serve_with_sklearn, "wide_row")
    flows = {
        "ingest": [],
        "materialize": [],
        # Named in project.py as a reference, so that the server does without scikit-learn.
        "train": [f"./estimator.py:{name}"],
        "monitor": [],
        "score": scoring,
        # It holds all the others.
        "loop": [f"./estimator.py:{name}", *scoring],
    }
    for flow, dependencies in flows.items():
        program(
            flow,
            "espalier.orchestration.entry",
            [f"espalier.orchestration.flows.{flow}:{flow}"],
            [f"//src/python/espalier/orchestration/flows/{flow}.py", *dependencies],
        )
    program("server", "espalier.serving.main", [], _server_carries(serve_with_sklearn, reader))


def ml_server(name, projects, serve_with_sklearn=False, reader="wide_row"):
    """One prediction server of several products: NAME.pex, whose requests name their model.

    projects: the products' names, each a folder of src/python with an ml_project.

    serve_with_sklearn, reader: as for ml_project.
    """
    pex_binary(
        name=name,
        output_path=f"{name}.pex",
        entry_point="espalier.serving.main",
        args=[f"--project={project}" for project in projects],
        dependencies=[
            # Named by an argument, so no import leads to them.
            *[f"//src/python/{project}/project.py:{project}" for project in projects],
            *_server_carries(serve_with_sklearn, reader),
        ],
        execution_mode="venv",
        strip_pex_env=False,
    )


def _server_carries(serve_with_sklearn, reader):
    """What a server imports by name alone, so that one without it does not carry it."""
    sklearn = [f"//3rdparty/python:reqs#{library}" for library in ("skops", "threadpoolctl")]
    feast = ["//src/python/espalier/serving/feast_reader.py", "//3rdparty/python:reqs#feast"]
    return [*(sklearn if serve_with_sklearn else []), *{"wide_row": [], "feast": feast}[reader]]
