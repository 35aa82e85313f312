"""Calls out: correlation, metadata, audio, store and the command line."""
