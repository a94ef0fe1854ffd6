def layers(root, order, base, forbidden):
    """Dependency rules that let data go one way: a package imports only what stands before it.

    root: the folder of the packages. order: the packages, first to last. base: what all may import.
    forbidden: by package, the requirements that its sources, though not its tests, do without.
    """
    rules = []
    for place, layer in enumerate(order):
        path = f"{root}/{layer}/**"
        allowed = [*base, *[f"{root}/{before}/**" for before in order[: place + 1]], f"!{root}/**"]
        libraries = [f"!//3rdparty/python/reqs#{library}" for library in forbidden.get(layer, [])]
        if libraries:
            rules.append(({"type": "python_sources", "path": path}, *libraries, *allowed, "*"))
        rules.append(({"path": path}, *allowed, "*"))
    return [*rules, ("*", "*")]
