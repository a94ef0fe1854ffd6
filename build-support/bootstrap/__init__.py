"""What ./pants needs before Pants can run: hash-pinned lists and the code that installs them.

It is run by any Python from 3.8 on, with the standard library alone.
"""
