def ml_project(name, overrides={}):
    """An ML product: its sources, its tests, and one program a flow plus the prediction server.

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

    flows = {
        "ingest": [],
        "materialize": [],
        # Named in project.py as a reference, so that the server does without scikit-learn.
        "train": [f"./estimator.py:{name}"],
        "monitor": [],
        "score": [],
    }
    for flow, dependencies in flows.items():
        program(
            flow,
            "espalier.orchestration.entry",
            [f"espalier.orchestration.flows.{flow}:{flow}"],
            [f"//src/python/espalier/orchestration/flows/{flow}.py", *dependencies],
        )
    program("server", "espalier.serving.main", [], [])
