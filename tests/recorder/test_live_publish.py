"""When calls that are over are published."""

import time

from recorder.live_publish import TOGETHER, LivePublisher


def test_calls_that_end_one_after_the_other_wait_half_a_second_and_not_for_a_full_batch(tmp_path):
    publisher = LivePublisher(None, None, tmp_path)
    taken, waited, batches = [], [], []

    def note(items):
        if items:
            waited.append(time.monotonic() - taken[sum(batches)])
            batches.append(len(items))

    publisher._publish_all = note
    publisher.start()
    for _ in range(20):
        taken.append(time.monotonic())
        publisher.take(None, 0)
        time.sleep(TOGETHER / 5)
    publisher.close()
    assert sum(batches) == 20
    assert 3 <= len(batches) <= 10, "some are collected"
    assert max(waited) < 2 * TOGETHER
