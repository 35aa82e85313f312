"""What RFC 7866, RFC 7865 and the field ask of a recording server, row by row: which test shows it, or why none can.

The rows are those of a checklist made from the standards: B a server's SIP, D its SDP, E RTP and RTCP, F metadata, G
events, H their delivery, I pauses, J sessions that the server begins, K availability, L security, O the field. `n/a`
begins the reason why a row asks nothing of a server.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = {
    "calls": HERE / "test_srs_calls.py",
    "sessions": HERE / "test_srs_sessions.py",
    "vendors": HERE / "test_srs_vendors.py",
    "metadata": HERE / "test_srs_metadata.py",
    "opensips": HERE / "test_srs_opensips.py",
    "live": HERE / "test_srs_live.py",
    "reception": HERE / "test_srs_reception.py",
    "reports": HERE / "test_receiver_reports.py",
    "ports": HERE / "test_media_reception.py",
    "monitor": HERE / "test_port_monitor.py",
    "transport": HERE.parent / "sip_ua" / "test_transport.py",
    "auth": HERE.parent / "sip_ua" / "test_agent_auth.py",
    "dialogs": HERE.parent / "sip_ua" / "test_session.py",
    "timer": HERE.parent / "sip_ua" / "test_session_timer.py",
    "documents": HERE.parent / "test_metadata.py",
}
SRC = "n/a: it is the SRC that must"

ROWS = {
    # B. A server's SIP
    "SRS-1": "sessions:test_strictly_only_both_marks_make_a_recording_session",
    "SRS-2": "sessions:test_our_contact_has_the_tag_of_a_recording_server",
    "SRS-3": "n/a: it registers nowhere; SRCs are given its address",
    "SRS-4": "sessions:test_a_session_of_ours_has_no_offer_and_answers_that_of_the_src",
    "SRS-5": "sessions:test_a_session_of_ours_has_no_offer_and_answers_that_of_the_src",
    "SRS-6": "sessions:test_a_reinvite_without_an_offer_gets_ours_and_its_answer_is_heard",
    "SRS-7": "sessions:test_the_answer_has_every_line_in_its_place",
    "SRS-8": "sessions:test_directions_are_answered_as_the_offer_allows",
    "SRS-9": "sessions:test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for",
    "SRS-10": "calls:test_metadata_that_nobody_can_read_cost_no_audio",
    "SRS-11": "metadata:test_what_is_referred_to_and_never_defined_is_no_error",
    "SRS-12": "vendors:test_an_identifier_for_two_kinds_is_an_error_that_is_noted",
    "SRS-13": "calls:test_where_the_settings_say_so_nothing_that_was_received_is_kept",
    "SRS-14": "vendors:test_names_beyond_ascii_in_the_character_set_of_the_part",
    "SRS-15": "sessions:test_a_part_that_must_be_understood_and_is_not_refuses_the_session",
    "SRS-16": "sessions:test_what_we_lack_is_named",
    "SRS-17": "calls:test_packets_that_were_lost_are_counted_and_leave_silence",
    "SRS-18": "n/a: video is refused",
    # D. SDP of the recording session
    "SDP-1": SRC,
    "SDP-2": "vendors:test_labels_that_fit_no_line_leave_the_order_to_tell",
    "SDP-3": "sessions:test_a_line_that_was_taken_away_can_be_used_again",
    "SDP-4": "sessions:test_directions_are_answered_as_the_offer_allows",
    "SDP-5": "sessions:test_directions_are_answered_as_the_offer_allows",
    "SDP-6": "live:test_a_session_over_the_wire_is_a_recording",
    "SDP-7": "calls:test_a_line_that_is_added_and_one_that_is_taken_away",
    "SDP-8": "sessions:test_our_version_counts_what_changes_and_theirs_is_not_trusted",
    "SDP-9": "sessions:test_directions_are_answered_as_the_offer_allows",
    "SDP-10": "n/a: only audio is taken, whatever its content",
    "SDP-11": "calls:test_key_presses_among_the_audio_are_in_the_document",
    "SDP-12": "sessions:test_an_offer_of_which_nothing_can_be_taken_is_refused",
    "SDP-13": SRC,
    "SDP-14": "dialogs:test_an_offer_of_the_peer_meets_ours_and_is_told_to_wait",
    # E. RTP and RTCP
    "RTP-1": "reports:test_reports_come_every_five_seconds_on_average_and_never_at_the_same_distance",
    "RTP-2": "ports:test_a_sender_hears_how_its_media_arrive_from_the_port_that_was_announced",
    "RTP-3": "sessions:test_the_answer_has_every_line_in_its_place",
    "RTP-4": "calls:test_contributors_in_the_packets_of_a_mixer_are_no_audio",
    "RTP-5": "n/a: it mixes nothing",
    "RTP-6": SRC,
    "RTP-7": "reports:test_names_are_of_96_random_bits",
    "RTP-8": "calls:test_a_new_source_on_a_line_goes_on_in_the_same_channel",
    "RTP-9": SRC,
    "RTP-10": "n/a: it is no translator",
    "RTP-11": "reports:test_the_next_report_counts_what_was_lost_since_and_without_media_there_is_no_block",
    "RTP-12": SRC,
    "RTP-13": SRC,
    "RTP-14": "n/a: no feedback is sent; AVPF is answered as it was offered",
    "RTP-15": "calls:test_g722_is_recorded_at_its_true_rate",
    # F. Metadata: what it says of documents that are sent is for SRCs; a server reads them as they come
    "MD-1": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "MD-2": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "MD-3": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "MD-4": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "MD-5": SRC,
    "MD-6": "calls:test_two_sessions_of_one_call_are_one_recording",
    "MD-7": "calls:test_after_a_transfer_the_document_has_both_callees_and_says_when_they_changed",
    "MD-8": SRC,
    "MD-9": "metadata:test_a_snapshot_tells_everything",
    "MD-10": "calls:test_a_hold_that_the_metadata_tell",
    "MD-11": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "MD-12": SRC,
    "MD-13": "calls:test_the_stop_time_and_the_reasons_are_those_of_the_call",
    "MD-14": "opensips:test_the_recording_is_the_one_that_a_replay_makes_of_the_call",
    "MD-15": "metadata:test_names_given_again_replace_those_of_before_and_others_stay",
    "MD-16": SRC,
    "MD-17": "calls:test_a_third_participant_with_a_line_of_its_own_is_heard_beside_the_callee",
    "MD-18": "calls:test_groups_of_the_metadata_join_calls_of_several_sessions",
    "MD-19": "vendors:test_labels_that_fit_no_line_leave_the_order_to_tell",
    "MD-20": "calls:test_a_session_becomes_a_recording_like_any_other",
    "MD-21": "calls:test_without_metadata_the_first_line_is_the_callers",
    "MD-22": "calls:test_a_session_without_a_call_records_nothing_until_one_begins",
    # G. Events
    "set up": "calls:test_a_session_becomes_a_recording_like_any_other",
    "hold, resume": "metadata:test_hold_and_resume_of_rfc_8068",
    "transfer": "calls:test_after_a_transfer_the_document_has_both_callees_and_says_when_they_changed",
    "conference": "calls:test_a_third_participant_with_a_line_of_its_own_is_heard_beside_the_callee",
    "end": "metadata:test_the_end_of_rfc_8068",
    "end, persistent": "calls:test_a_session_without_a_call_records_nothing_until_one_begins",
    "mixed": "calls:test_one_mixed_line_is_recorded_and_said_to_be_mixed",
    "two calls": "calls:test_two_calls_in_one_session_are_two_recordings_of_one_group",
    # H. Delivery
    "DEL-1": SRC,
    "DEL-2": SRC,
    "DEL-3": "calls:test_metadata_that_come_late_follow_the_lines_that_are_recorded_already",
    "DEL-4": "sessions:test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for",
    "DEL-5": "calls:test_metadata_only_in_the_bye_still_tell_who_it_was",
    "DEL-6": SRC,
    "DEL-7": "vendors:test_bodies_of_any_make_are_taken_apart",
    "DEL-8": "vendors:test_bodies_of_any_make_are_taken_apart",
    "DEL-9": "metadata:test_a_partial_document_changes_only_what_it_names",
    "REQ-1": "sessions:test_a_session_that_never_had_metadata_is_asked_after_a_while",
    "REQ-2": "sessions:test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for",
    "REQ-3": "sessions:test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for",
    "REQ-4": SRC,
    "REQ-5": "sessions:test_a_partial_document_before_any_complete_one_has_a_snapshot_asked_for",
    # I. Pause, resume, stop
    "PZ-1": "calls:test_a_pause_of_the_recording_is_marked",
    "PZ-2": "calls:test_a_pause_from_our_side_records_nothing_and_tells_the_src",
    "PZ-3": "opensips:test_a_hold_is_by_the_one_who_held",
    "PZ-4": "calls:test_a_line_that_is_added_and_one_that_is_taken_away",
    "PZ-5": SRC,
    "PZ-6": "calls:test_a_pause_of_the_recording_is_marked",
    # J. Sessions that the server begins
    "SI-1": "sessions:test_a_session_of_ours_has_no_offer_and_answers_that_of_the_src",
    "SI-2": SRC,
    "SI-3": "sessions:test_an_src_that_offers_nothing_is_an_error_for_who_asked",
    "SI-4": "sessions:test_a_session_of_ours_has_no_offer_and_answers_that_of_the_src",
    "SI-5": SRC,
    # K. Availability
    "HA-1": "calls:test_a_session_without_a_call_records_nothing_until_one_begins",
    "HA-2": "sessions:test_draining_refuses_new_sessions_and_waits_for_the_others",
    "HA-3": SRC,
    "HA-4": "calls:test_a_call_goes_on_in_the_same_recording_when_its_src_comes_again",
    "HA-5": "calls:test_a_call_goes_on_after_a_restart_when_its_src_invites_anew",
    "HA-6": "sessions:test_a_silent_src_is_asked_whether_it_is_there",
    "HA-7": "calls:test_two_sessions_of_one_call_are_one_recording",
    "HA-8": "calls:test_two_sessions_of_one_call_are_one_recording",
    # L. Security
    "SEC-1": "transport:test_old_tls_is_refused",
    "SEC-2": "transport:test_mutual_tls_refuses_a_client_without_a_certificate",
    "SEC-3": SRC,
    "SEC-4": "sessions:test_the_answer_has_every_line_in_its_place",
    "SEC-5": "calls:test_srtp_is_decrypted_by_the_keys_that_the_src_offers",
    "SEC-6": SRC,
    "SEC-7": SRC,
    "SEC-8": "transport:test_tls_carries_messages_and_both_sides_know_each_other",
    "SEC-9": "sessions:test_our_key_changes_only_where_theirs_or_their_address_does",
    "SEC-10": "n/a: of the store; it is as for every recording",
    "SEC-11": "sessions:test_who_may_record_is_told_by_address_certificate_or_user",
    # O. The field
    "namespaces, prefixes, roots": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "drafts' elements and attributes": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "identifiers of any form": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "empty identifiers": "vendors:test_empty_identifiers_make_a_recording_of_what_there_is",
    "elements in any order": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "times without a zone": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "Contact of any form": "sessions:test_leniently_any_sign_will_do_and_what_is_missing_is_said",
    "no Require": "sessions:test_leniently_any_sign_will_do_and_what_is_missing_is_said",
    "no SIPREC at all": "sessions:test_a_call_without_any_sign_is_none_of_ours_unless_the_settings_say_so",
    "handling=required on the SDP": "sessions:test_sdp_that_must_be_handled_is",
    "extra parts": "vendors:test_bodies_of_any_make_are_taken_apart",
    "fake ports": "vendors:test_offers_of_any_make_are_answered",
    "labels 1 before 0": "vendors:test_labels_that_come_second_first_go_to_whom_the_metadata_name",
    "version of o= unchanged": "calls:test_a_hold_that_only_the_directions_tell",
    "every payload type wanted": "sessions:test_the_answer_has_every_line_in_its_place",
    "ill-formed XML": "vendors:test_metadata_of_any_make_tell_who_it_was",
    "BYE of ours refused": "n/a: the user agent ends the session whatever is answered; ports are given back",
    "request for metadata refused": "sessions:test_a_session_that_never_had_metadata_is_asked_after_a_while",
    "metadata in BYE, two Content-Types": "vendors:test_a_bye_with_metadata_and_two_content_types_is_read",
    "hold by c=0.0.0.0": "calls:test_a_pause_of_the_recording_is_marked",
    "one mixed line": "calls:test_one_mixed_line_is_recorded_and_said_to_be_mixed",
    "payload type not offered": "vendors:test_a_payload_type_that_was_not_offered_is_decoded_where_it_is_static",
    "second description behind the first": "vendors:test_bodies_of_any_make_are_taken_apart",
    "strays": "monitor:test_the_first_sender_has_the_port_and_strays_do_not_come_through",
    "X-Cisco-Recording-Participant": "vendors:test_cisco_without_metadata_is_known_by_its_header",
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
    counts = {"SRS": 18, "SDP": 14, "RTP": 15, "MD": 22, "DEL": 9, "REQ": 5, "PZ": 6, "SI": 5, "HA": 8, "SEC": 11}
    for kind, count in counts.items():
        assert {f"{kind}-{number}" for number in range(1, count + 1)} <= set(ROWS)
