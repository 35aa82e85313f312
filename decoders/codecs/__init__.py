"""Audio codecs: RTP payloads in, 16-bit samples out."""
