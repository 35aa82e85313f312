"""Bytes mean: SIP, SDP, RTP, RTCP, SRTP, DTMF, codecs, timeline and quality. Pure: no files, sockets or clocks."""
