"""Errors that a user can cause, one family."""


class SpanrecError(Exception):
    """Base of every error whose text is meant for the user: what, where, and what to do."""


class CaptureError(SpanrecError):
    """A capture cannot be read at all."""
