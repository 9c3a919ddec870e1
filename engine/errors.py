"""Errors the engine raises on purpose: each message says what was wrong and what to do."""


class EngineError(Exception):
    """Base of all errors a user can cause or cure; one line, shown as it is."""


class ConfigError(EngineError):
    """A model or engine configuration that cannot be used."""


class CheckpointError(EngineError):
    """Weights or tokenizer files that are missing, damaged, hostile or of the wrong shape."""


class Cancelled(EngineError):
    """The request was cancelled; raised between two forwards."""
