"""A client pays once: for its prompt, and for the tokens that it has got, whatever was tried."""

from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.charging import AttemptEnd, earlier_attempts, settle
from gateway.ledger.price import PriceList
from gateway.ledger.row import ChargeLimit, UsageRow, charge_limit_of, make_row
from gateway.telemetry.dispatch import EarlierAttempt, Origin
from gateway.telemetry.usage import UsageRecord

PROMPT = 20
ANSWER = 30


@dataclass
class Played:
    """Attempts of one request as engines and the router see them, and what its client has."""

    ends: list[AttemptEnd]
    records: list[UsageRecord]
    delivered: int
    is_complete: bool


def _record(number: int, *, kept: int | None, generated: int, is_copy: bool = False) -> UsageRecord:
    return UsageRecord(
        epoch=1,
        seq=number,
        id=number,
        origin=Origin(
            project="p", attempt=number, is_continuation=kept is not None, is_copy=is_copy
        ),
        model="m",
        arrived_s=1.0,
        ended_s=2.0,
        prompt_tokens=PROMPT + (kept or 0),
        completion_tokens=generated,
    )


@st.composite
def plays(draw: st.DrawFn) -> Played:
    """Attempts that break before or after the first byte, are continued or repeated, or end."""
    ends: list[AttemptEnd] = []
    records: list[UsageRecord] = []
    delivered = 0
    how = "breaks"
    for number in range(1, draw(st.integers(1, 6)) + 1):
        # Engines may have generated more than was relayed; a continuation may repeat a word.
        may_continue = delivered > 0 and draw(st.booleans())
        kept = draw(st.integers(1, delivered)) if may_continue else None
        start = kept or 0
        how = draw(st.sampled_from(["breaks", "breaks", "ends", "client leaves"]))
        end = ANSWER if how == "ends" else draw(st.integers(start, ANSWER))
        relayed = end if how == "ends" else draw(st.integers(start, end))
        reaches = max(delivered, relayed)
        records.append(_record(number, kept=kept, generated=end - start))
        ends.append(
            AttemptEnd(
                id=number,
                engine="e",
                kept_tokens=kept,
                has_delivered=reaches > delivered,
                delivered_tokens=reaches,
            )
        )
        delivered = reaches
        if how != "breaks":
            break
    return Played(ends, records, delivered, is_complete=how != "breaks")


def _rows(played: Played) -> list[UsageRow]:
    said = {
        each.id: charge_limit_of(each)
        for each in settle(played.ends, is_complete=played.is_complete)
    }
    return [
        make_row("e", record, said.get(record.id), PriceList(), 0, is_estimated=False)
        for record in played.records
    ]


@given(plays())
def test_the_prompt_is_charged_once_and_the_answer_as_the_client_has_it(played: Played) -> None:
    """Of a client that leaves, what the last engine generated for it counts as well."""
    rows = _rows(played)
    generated_last = (played.ends[-1].kept_tokens or 0) + played.records[-1].completion_tokens
    has_any = played.is_complete or played.delivered > 0

    assert sum(row.charged_prompt_tokens for row in rows) == PROMPT * has_any
    expected = generated_last if played.is_complete else played.delivered
    assert sum(row.charged_completion_tokens for row in rows) == expected


@given(plays())
def test_what_is_not_charged_is_wasted(played: Played) -> None:
    """No row charges more than its engine did, and a wasted one charges nothing."""
    for row, record in zip(_rows(played), played.records, strict=True):
        assert 0 <= row.charged_completion_tokens <= record.completion_tokens
        assert row.charged_prompt_tokens in {0, record.prompt_tokens}
        if row.is_wasted:
            assert row.charged_prompt_tokens == row.charged_completion_tokens == 0


def test_a_continuation_from_further_back_is_not_charged_twice() -> None:
    """The second attempt's part is thrown away: the third one begins before it."""
    ends = [
        AttemptEnd(id=1, engine="e", has_delivered=True, delivered_tokens=10),
        AttemptEnd(id=2, engine="e", has_delivered=True, delivered_tokens=15, kept_tokens=8),
        AttemptEnd(id=3, engine="e", has_delivered=True, delivered_tokens=30, kept_tokens=5),
    ]
    charged = {each.id: each.completion_tokens for each in settle(ends, is_complete=True)}
    assert charged == {1: 5, 2: 0}


def test_an_attempt_says_what_becomes_of_the_earlier_ones() -> None:
    """As far as it goes on from them; those that nothing is kept of are wasted."""
    first = AttemptEnd(id=1, engine="e", has_delivered=True, delivered_tokens=10, is_cut=True)
    failed = AttemptEnd(id=2, engine="e", kept_tokens=9, is_cut=True)
    goes_on = AttemptEnd(id=3, engine="e", kept_tokens=9)
    begins_anew = AttemptEnd(id=3, engine="e")
    assert earlier_attempts([first, failed, goes_on]) == (
        EarlierAttempt(1, completion_tokens=9),
        EarlierAttempt(2, is_wasted=True),
    )
    assert earlier_attempts([first, begins_anew]) == (EarlierAttempt(1, is_wasted=True),)
    assert earlier_attempts([goes_on]) == ()


def test_an_attempt_that_was_cut_short_is_charged_if_its_router_says_so() -> None:
    """If it says nothing, it has been killed; the last words of the others count as before."""
    cut = AttemptEnd(id=1, engine="e", has_delivered=True, is_cut=True)
    (word,) = settle([cut], is_complete=True)
    assert charge_limit_of(word) == ChargeLimit()
    record = msgspec.structs.replace(_record(1, kept=None, generated=9), is_aborted=True)

    def charged(limit: ChargeLimit | None) -> int:
        row = make_row("e", record, limit, PriceList(), 0, is_estimated=False)
        return row.charged_completion_tokens

    assert [charged(ChargeLimit()), charged(None)] == [9, 0]


def test_shadow_copies_are_never_charged() -> None:
    """Nobody waits for their answers."""
    record = _record(1, kept=None, generated=9, is_copy=True)
    row = make_row("e", record, ChargeLimit(), PriceList(), 0, is_estimated=False)
    assert (row.charged_prompt_tokens, row.charged_completion_tokens) == (0, 0)
    assert not row.is_charged


def test_a_request_that_succeeds_at_once_needs_no_settlement() -> None:
    """The engine's record says it all."""
    assert settle([AttemptEnd(id=1, engine="e", has_delivered=True)], is_complete=True) == []
