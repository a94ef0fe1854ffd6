def layers(root, order, base, leaves):
    """Dependency rules that let data go one way: a package imports only what stands before it.

    root: the folder of the packages. order: the packages, first to last. base: what all may import.
    leaves: modules of a later package that an earlier one may import too, since they import nothing.
    """
    rules = []
    for place, layer in enumerate(order):
        before = [f"{root}/{earlier}/**" for earlier in order[: place + 1]]
        rules.append(
            (
                {"path": f"{root}/{layer}/**"},
                *base,
                *before,
                *leaves,
                f"!{root}/**",
                "*",
            )
        )
    rules.append(("*", "*"))
    return rules
