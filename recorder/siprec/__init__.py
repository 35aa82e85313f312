"""Recording sessions (RFC 7866): ours towards recording servers, and those that clients have with us."""
