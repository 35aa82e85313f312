"""A SIP user agent for recording sessions (RFC 3261, RFC 7866), for the client and for the server side."""
