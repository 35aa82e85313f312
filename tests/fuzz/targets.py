"""Every fuzz target by name."""

from tests.fuzz import media, packets, recording, signalling, whole

TARGETS = signalling.TARGETS | media.TARGETS | packets.TARGETS | recording.TARGETS | whole.TARGETS
