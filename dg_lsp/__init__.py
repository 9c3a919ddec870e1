"""The language server and its command line: runs without a GPU and without torch."""

__version__ = "0.1.0"
