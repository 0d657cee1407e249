"""The version of the package; it imports nothing, so that every module may use it."""

__version__ = "0.1.0"
