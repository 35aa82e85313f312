"""What RFC 7866, RFC 7865 and RFC 8068 ask of a client that taps calls, row by row: which test shows it, or why none.

The rows are those of a checklist made from the standards: A a client's SIP, C indication in the call, D its SDP, E RTP
and RTCP, F metadata, G events, H their delivery, I pauses, J sessions that a server asks for, K availability, L
security, M what is different for a tap, N contradictions, and what servers in the field do. `n/a` begins the reason why
a row asks nothing of it. `python -m tests.siprec_checklist src` prints rows, tests and results.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UA = HERE.parent / "sip_ua"
FILES = {
    "session": HERE / "test_src_session.py",
    "sessions": HERE / "test_src_sessions.py",
    "sipp": HERE / "test_src_sipp.py",
    "snapshot": HERE / "test_snapshot.py",
    "mime": HERE / "test_mime_write.py",
    "sdp": HERE / "test_sdp_write.py",
    "servers": HERE / "test_servers.py",
    "spool": HERE / "test_spool.py",
    "forward": HERE / "test_forward.py",
    "pictures": HERE / "test_pictures.py",
    "rules": HERE / "test_src_rules.py",
    "pause": HERE / "test_auto_pause.py",
    "whole": HERE / "test_src_to_srs.py",
    "agent": UA / "test_agent.py",
    "auth": UA / "test_agent_auth.py",
    "dialogs": UA / "test_session.py",
    "timer": UA / "test_session_timer.py",
    "transport": UA / "test_transport.py",
    "locate": UA / "test_locate.py",
    "documents": HERE.parent / "test_metadata.py",
    "seen": HERE.parent / "test_siprec_seen.py",
}
PASSIVE = "n/a: a tap is no party to the call and can say nothing in it; docs/siprec.md tells what an operator does"
NO_VIDEO = "n/a: video is forwarded as it comes, without feedback of ours"
SRS = "n/a: it is the SRS that must"

WHOLE = "session:test_a_call_is_recorded_from_invite_to_bye"
SECURE = "session:test_an_encrypted_call_goes_only_where_it_stays_so"
KEYS = "session:test_keys_are_our_own_one_for_each_stream_and_the_servers_choice_is_taken"
COMPLETE = "snapshot:test_a_complete_snapshot_has_all_elements_in_the_order_of_the_schema"
SERVER_PAUSE = "session:test_a_server_pauses_moves_and_refuses_streams_but_can_add_none"
SNAPSHOT = "session:test_a_request_for_a_snapshot_is_answered_200_and_then_a_complete_one_follows"
MOVED = "session:test_when_a_server_vanishes_the_call_goes_on_at_the_next_under_the_same_identifiers"
PAUSED = "session:test_a_pause_stops_media_at_once_and_a_resume_waits_for_the_answer"
HOLD = "snapshot:test_hold_takes_send_from_the_held_and_recv_from_the_holder_and_resume_gives_both_back"
TRANSFER = "snapshot:test_a_new_participant_of_the_same_session_takes_the_place_of_one_who_leaves"
ENDED = "snapshot:test_the_end_has_stop_time_reason_and_everybody_leaves"
ASKED = "sessions:test_an_invite_is_a_servers_only_with_both_marks_and_only_if_it_was_authenticated"
NUMBER = "sessions:test_a_server_gets_the_calls_of_the_number_it_asks_for_and_later_ones_too"
PERSISTENT = "sessions:test_a_persistent_session_takes_calls_one_after_another_and_reuses_their_places"
POSITION = "session:test_media_go_out_by_position_under_the_servers_numbers_and_to_its_address"

ROWS = {
    # A. A client's SIP
    "SRC-1": "session:test_what_is_said_in_place_of_what_was_heard",
    "SRC-2": "sipp:test_a_server_pauses_and_goes_on_by_re_invite_and_update",
    "SRC-3": "session:test_a_server_that_fails_is_followed_by_the_next_with_the_same_legs",
    "SRC-4": "session:test_every_request_of_the_session_has_its_marks",
    "SRC-5": ASKED,
    "SRC-6": "n/a: it registers nowhere; servers are given its address",
    "SRC-7": "locate:test_a_uri_leads_where_rfc_3263_says",
    "SRC-8": WHOLE,
    "SRC-9": "session:test_a_server_without_update_gets_all_metadata_by_re_invite",
    "SRC-10": PERSISTENT,
    "SRC-11": "sessions:test_commands_come_from_other_threads",
    "SRC-12": "dialogs:test_after_a_491_the_owner_of_the_call_id_waits_longer",
    "SRC-13": WHOLE,
    # C. Indication and preference in the call
    "CS-1": PASSIVE,
    "CS-2": PASSIVE,
    "CS-3": PASSIVE,
    "CS-4": PASSIVE,
    "CS-5": PASSIVE,
    "CS-6": "pause:test_preferences_of_participants_are_heeded_where_that_is_told",
    "CS-7": "pause:test_preferences_of_participants_are_heeded_where_that_is_told",
    "CS-8": PASSIVE,
    "CS-9": PASSIVE,
    # D. SDP of the recording session
    "SDP-1": WHOLE,
    "SDP-2": SNAPSHOT,
    "SDP-3": PERSISTENT,
    "SDP-4": WHOLE,
    "SDP-5": "session:test_a_server_that_is_not_ready_gets_media_once_it_offers_recvonly",
    "SDP-6": POSITION,
    "SDP-7": PERSISTENT,
    "SDP-8": "session:test_versions_rise_by_one_with_each_change_and_the_same_version_is_the_same_text",
    "SDP-9": "session:test_what_answers_recvonly_to_inactive_gets_nothing",
    "SDP-10": "n/a: nothing on the wire says what a stream's content is",
    "SDP-11": "sdp:test_every_payload_type_has_its_rtpmap_and_what_is_refused_has_a_port_of_0",
    "SDP-12": "session:test_an_answer_with_codecs_that_the_call_does_not_have_is_never_sent_to",
    "SDP-13": "session:test_what_is_not_acceptable_is_offered_again_with_less",
    "SDP-14": "session:test_updates_are_coalesced_the_first_at_once",
    # E. RTP and RTCP
    "RTP-1": "forward:test_reports_go_out_at_random_intervals_with_the_true_clock",
    "RTP-2": "forward:test_it_leaves_from_the_ports_that_the_session_announced",
    "RTP-3": "n/a: AVP and SAVP are offered, which every server takes; there is no feedback to be sent",
    "RTP-4": "n/a: it mixes nothing",
    "RTP-5": "n/a: it mixes nothing",
    "RTP-6": "forward:test_several_servers_get_the_same_media_under_names_of_their_own",
    "RTP-7": "forward:test_several_servers_get_the_same_media_under_names_of_their_own",
    "RTP-8": "forward:test_a_new_ssrc_between_the_same_ends_goes_on_at_once",
    "RTP-9": "forward:test_a_leg_without_media_keeps_its_way_open",
    "RTP-10": "n/a: it is an endpoint, no translator: RTCP of the server cannot reach the parties of a tapped call",
    "RTP-11": "forward:test_what_was_lost_before_the_tap_stays_a_gap",
    "RTP-12": "forward:test_media_goes_out_as_it_came_under_numbers_of_its_own",
    "RTP-13": "forward:test_order_of_what_waits_and_what_comes",
    "RTP-14": NO_VIDEO,
    "RTP-15": "whole:test_a_call_through_a_recording_session_is_the_call_of_the_capture",
    # F. Metadata
    "MD-1": COMPLETE,
    "MD-2": COMPLETE,
    "MD-3": COMPLETE,
    "MD-4": COMPLETE,
    "MD-5": "documents:test_no_identifier_comes_from_what_is_personal",
    "MD-6": MOVED,
    "MD-7": TRANSFER,
    "MD-8": COMPLETE,
    "MD-9": COMPLETE,
    "MD-10": HOLD,
    "MD-11": COMPLETE,
    "MD-12": COMPLETE,
    "MD-13": ENDED,
    "MD-14": "documents:test_session_ids_come_from_the_session_id_header_only",
    "MD-15": "documents:test_identities_stand_in_order_of_trust_once_for_each_name",
    "MD-16": "snapshot:test_no_name_and_no_text_makes_an_invalid_document",
    "MD-17": "documents:test_an_unknown_party_is_anonymous_and_a_request_uri_serves_where_nothing_better_was_heard",
    "MD-18": "snapshot:test_two_calls_of_one_conversation_share_their_group",
    "MD-19": "session:test_a_stream_that_is_refused_costs_only_itself_and_is_offered_with_port_0_from_then_on",
    "MD-20": "sipp:test_a_session_from_invite_to_bye",
    "MD-21": "session:test_what_is_said_in_place_of_what_was_heard",
    "MD-22": "snapshot:test_no_call_at_all_is_an_empty_document",
    "F3 identifiers and references": COMPLETE,
    "F3 labels": SNAPSHOT,
    "F3 times": COMPLETE,
    # G. Which event sends what
    "G set up": WHOLE,
    "G hold": HOLD,
    "G resume": HOLD,
    "G transfer, same call": TRANSFER,
    "G transfer, new call": "snapshot:test_a_call_that_joins_a_conversation_tells_its_group",
    "G join": TRANSFER,
    "G leave": "snapshot:test_a_participant_who_leaves_contributes_to_nothing",
    "G end": ENDED,
    "G end, persistent": PERSISTENT,
    "G mixed": "n/a: it mixes nothing",
    "G two calls in one session": PERSISTENT,
    "G pause of the recording": PAUSED,
    # H. Delivery
    "DEL-1": WHOLE,
    "DEL-2": "session:test_updates_are_coalesced_the_first_at_once",
    "DEL-3": WHOLE,
    "DEL-4": "session:test_a_refused_update_is_followed_by_a_complete_snapshot",
    "DEL-5": "session:test_a_server_without_update_gets_all_metadata_by_re_invite",
    "DEL-6": "snapshot:test_a_new_stream_names_its_label_so_that_an_offer_must_go_with_it",
    "DEL-7": "mime:test_each_part_has_its_headers",
    "DEL-8": "mime:test_each_part_has_its_headers",
    "DEL-9": "snapshot:test_our_own_server_reads_every_step_as_it_was_meant",
    "REQ-1": "sipp:test_a_request_for_a_snapshot_is_answered_and_then_fulfilled",
    "REQ-2": SRS,
    "REQ-3": SRS,
    "REQ-4": SNAPSHOT,
    "REQ-5": SRS,
    # I. Pause, resume, stop
    "PZ-1": PAUSED,
    "PZ-2": "sipp:test_a_server_pauses_and_goes_on_by_re_invite_and_update",
    "PZ-3": "session:test_hold_and_resume_are_told_and_the_stream_stays_or_pauses_as_the_policy_has_it",
    "PZ-4": PERSISTENT,
    "PZ-5": PASSIVE,
    "PZ-6": "sessions:test_a_rule_pauses_and_resumes_and_an_operators_pause_outlasts_it",
    # J. Sessions that a server asks for
    "SI-1": SRS,
    "SI-2": ASKED,
    "SI-3": ASKED,
    "SI-4": NUMBER,
    "SI-5": ASKED,
    # K. Availability
    "HA-1": PERSISTENT,
    "HA-2": "agent:test_the_next_target_is_tried_where_one_is_silent_refuses_connections_or_is_busy",
    "HA-3": "sipp:test_a_server_that_says_nothing_is_left_after_its_time",
    "HA-4": MOVED,
    "HA-5": SNAPSHOT,
    "HA-6": "session:test_missing_receiver_reports_have_the_server_asked_and_only_silence_ends_it",
    "HA-7": "sessions:test_several_instances_are_independent_recordings_of_one_call",
    "HA-8": SRS,
    # L. Security
    "SEC-1": "transport:test_old_tls_is_refused",
    "SEC-2": "transport:test_tls_carries_messages_and_both_sides_know_each_other",
    "SEC-3": SECURE,
    "SEC-4": KEYS,
    "SEC-5": KEYS,
    "SEC-6": "n/a: packets are never sent on under the keys of the call",
    "SEC-7": KEYS,
    "SEC-8": "transport:test_tls_carries_messages_and_both_sides_know_each_other",
    "SEC-9": "session:test_an_answer_without_a_key_or_in_the_clear_gets_no_media",
    "SEC-10": "spool:test_passwords_are_not_kept",
    "SEC-11": SRS,
    # M. What is different for a tap
    "M indication": PASSIVE,
    "M role": "forward:test_media_goes_out_as_it_came_under_numbers_of_its_own",
    "M mapping": COMPLETE,
    "M loss before the tap": "forward:test_what_was_lost_before_the_tap_stays_a_gap",
    "M encrypted calls": SECURE,
    "M late start": "sessions:test_commands_come_from_other_threads",
    "M foreign sessions on the wire": "pictures:test_recording_sessions_of_others_have_no_pictures",
    # N. Contradictions
    "N media type": "mime:test_each_part_has_its_headers",
    "N datamode": COMPLETE,
    "N no timestamp element": COMPLETE,
    "N server without an offer": ASKED,
    "N metadata before and in BYE": WHOLE,
    "N feature tag after the URI": WHOLE,
    "N a=recordpref": "pause:test_preferences_of_participants_are_heeded_where_that_is_told",
    # Servers in the field
    "answers without labels": POSITION,
    "answers without recvonly": POSITION,
    "answers without rtpmap": POSITION,
    "relabels": POSITION,
    "never answers UPDATE": "sipp:test_an_update_that_is_never_answered_is_followed_by_a_re_invite_in_the_same_dialog",
    "other ports at each re-INVITE": "forward:test_a_new_answer_moves_the_media_at_once",
    "recvonly in answer to inactive": "session:test_what_answers_recvonly_to_inactive_gets_nothing",
    "one codec": "session:test_a_488_that_says_what_it_takes_is_heeded",
}


@cache
def named_in(path):
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test_or_a_reason(row):
    shown = ROWS[row]
    if shown.startswith("n/a: "):
        return
    file, _, name = shown.partition(":")
    assert name in named_in(FILES[file]), f"{row}: {FILES[file].name} has no {name}"


def test_no_row_is_left_out():
    counts = {
        "SRC": 13,
        "CS": 9,
        "SDP": 14,
        "RTP": 15,
        "MD": 22,
        "DEL": 9,
        "REQ": 5,
        "PZ": 6,
        "SI": 5,
        "HA": 8,
        "SEC": 11,
    }
    for kind, count in counts.items():
        assert {f"{kind}-{number}" for number in range(1, count + 1)} <= set(ROWS)
