"""Packets in: files, link layers and tunnels become columns. Knows nothing of SIP or RTP."""
