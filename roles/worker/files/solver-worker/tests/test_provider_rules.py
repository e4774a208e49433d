# SPDX-License-Identifier: GPL-3.0-or-later
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solver_worker import codes, pace
from solver_worker.codes import Answer


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, "OK|123", Answer("ok", "123")),
        (200, '{"status":1,"request":"123"}', Answer("ok", "123")),
        (200, "ERROR_PAGEURL", Answer("error", "ERROR_PAGEURL")),
        (200, '{"status":0,"request":"ERROR_PAGEURL"}', Answer("error", "ERROR_PAGEURL")),
        (200, "MAX_USER_TURN", Answer("error", "MAX_USER_TURN")),
        (200, "ERROR:1003", Answer("error", "ERROR: 1003")),
        (403, "IP_BANNED", Answer("error", "IP_BANNED")),
        (502, "ERROR_PAGEURL", Answer("unclear", "HTTP_502")),
        (200, "OK|abc", Answer("unclear", "BAD_ANSWER")),
        (200, "OK|", Answer("unclear", "BAD_ANSWER")),
        (200, "<html>", Answer("unclear", "HTTP_200")),
        (200, "", Answer("unclear", "HTTP_200")),
        (302, "", Answer("unclear", "HTTP_302")),
        (200, "{broken", Answer("unclear", "HTTP_200")),
        (200, '{"status":1}', Answer("unclear", "HTTP_200")),
    ],
)
def test_answers_of_a_submit(status: int, text: str, expected: Answer) -> None:
    assert codes.read_submit(status, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CAPCHA_NOT_READY", Answer("not_ready")),
        ('{"status":0,"request":"CAPCHA_NOT_READY"}', Answer("not_ready")),
        ("OK|a|b \n", Answer("ok", "a|b \n")),
        ("ERROR_CAPTCHA_UNSOLVABLE", Answer("error", "ERROR_CAPTCHA_UNSOLVABLE")),
        ("<html>oops</html>", Answer("unclear", "HTTP_200")),
    ],
)
def test_answers_of_a_poll(text: str, expected: Answer) -> None:
    assert codes.read_poll(200, text) == expected


@given(st.integers(100, 599), st.text())
def test_no_answer_breaks_the_reader(status: int, text: str) -> None:
    for reader in (codes.read_submit, codes.read_poll, codes.read_balance):
        assert reader(status, text).kind in ("ok", "not_ready", "error", "unclear")


@given(st.text())
def test_a_solution_is_handed_on_byte_for_byte(text: str) -> None:
    assert codes.read_poll(200, "OK|" + text) == Answer("ok", text)


@pytest.mark.parametrize("code", sorted(codes.SUBMIT_CODES))
def test_each_submit_code_is_recognised_and_has_one_fate(code: str) -> None:
    assert codes.read_submit(200, code) == Answer("error", code)
    verdict = codes.submit_verdict(code, "2captcha")
    assert verdict.error_class in ("account", "provider", "task")
    assert (verdict.retry_s is not None) == (verdict.error_class == "provider")


@pytest.mark.parametrize("code", sorted(codes.POLL_CODES))
def test_each_poll_code_is_recognised_and_account_errors_keep_a_paid_task(code: str) -> None:
    assert codes.read_poll(200, code) == Answer("error", code)
    verdict = codes.poll_verdict(code)
    if verdict.error_class == "account":
        assert verdict.retry_s is not None
    if verdict.error_class == "task":
        assert verdict.retry_s is None


@pytest.mark.parametrize(
    ("code", "seconds"),
    [("MAX_USER_TURN", 10), ("ERROR: 1001", 600), ("ERROR: 1002", 300), ("ERROR: 1003", 30), ("IP_BANNED", 300)],
)
def test_blocks_last_as_long_as_the_provider_says(code: str, seconds: float) -> None:
    assert codes.submit_verdict(code, "captchaai").block_s == seconds


def test_too_many_polls_block_polls_too() -> None:
    assert codes.poll_verdict("ERROR: 1005").block_polls
    assert codes.poll_verdict("ERROR: 1005").block_s == 600


def test_an_empty_account_is_a_matter_of_dialect() -> None:
    assert codes.submit_verdict("ERROR_ZERO_BALANCE", "2captcha").error_class == "account"
    assert codes.submit_verdict("ERROR_ZERO_BALANCE", "captchaai").retry_s is not None


def test_unknown_codes_end_an_unpaid_task_and_keep_a_paid_one() -> None:
    assert codes.submit_verdict("ERROR_NEW", "captchaai").retry_s is None
    assert codes.poll_verdict("ERROR_NEW").retry_s is not None


@given(st.lists(st.floats(0, 1), max_size=300))
def test_the_window_never_lets_through_what_bans(gaps: list[float]) -> None:
    window, now, sent = pace.SubmitWindow(), 0.0, []
    for gap in gaps:
        now += gap / 50
        now += window.delay(now)
        window.count(now)
        sent.append(now)
    for at in sent:
        assert sum(at <= other < at + pace.WINDOW_S for other in sent) <= 60


def test_polls_widen_for_old_tasks_and_when_the_allowance_is_short() -> None:
    assert pace.poll_interval(5, 10, 5000) == 5
    assert pace.poll_interval(5, 61, 5000) == 10
    assert pace.poll_interval(5, 10, 0) == 25
    assert 5 < pace.poll_interval(5, 10, 300) < 25


def test_the_account_rule_is_met_before_the_provider_counts_it_broken() -> None:
    calls = 0
    while pace.allowance(10, calls) > 0:
        calls += 1
    assert calls + 1 <= 20 * 10 + 1200


def test_resumed_tasks_are_spread_and_never_early() -> None:
    delays = [pace.resume_delay(3.0, 1000, 5.0) for _unused in range(1000)]
    assert min(delays) >= 3.0
    assert max(delays) - min(delays) > 5.0
    assert pace.resume_delay(-100.0, 1, 5.0) <= 5.0


def test_images_do_not_age_and_tokens_do() -> None:
    assert codes.is_image("base64")
    assert not codes.is_image("userrecaptcha")
    assert not codes.is_image("a-method-of-next-year")
