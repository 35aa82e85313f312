"""Every fuzz target by name."""

from tests.fuzz import media, packets, signalling, whole

TARGETS = signalling.TARGETS | media.TARGETS | packets.TARGETS | whole.TARGETS
