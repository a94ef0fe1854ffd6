"""The flows of an ML product. Each only reads settings and calls one capability."""
