"""One module per command: it resolves its options, calls one function, and shows the result.

A module imports what it needs inside its function, so that `--help` answers at once.
"""
