"""What every ledger must do.

Inherit, and give the fixtures `ledger` and `expiring_ledger` over the same data. `expiring_ledger`
holds for no time at all: whatever it reserves or renews is due at once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from policies.ledger.base import (
    LARGEST_BALANCE_NANODOLLARS,
    Balance,
    Checkpoint,
    GrantTooLarge,
    HoldRequest,
    HoldState,
    IdConflict,
    LimitExceeded,
    Limits,
    LineMeta,
    PaymentRequired,
    Reservation,
    ReservationFinished,
    Settlement,
    SettleRequest,
)
from policies.ledger.client import Ledger
from policies.ledger.sweeper import Sweeper

META = LineMeta(
    model="demo/fake",
    endpoint="fake",
    tokens={"prompt": 3, "completion": 60},
    markup_bp=500,
    price_version="v1",
    flags=("own_count",),
)


def hold(hold_id: str, amount: int, account: str = "acme", **more: object) -> HoldRequest:
    """A request for a hold of the key `k1`."""
    request = HoldRequest(hold_id, account, "k1", amount, meta=META)
    return msgspec.structs.replace(request, **more)  # type: ignore[arg-type]


async def money(ledger: Ledger, account: str = "acme") -> tuple[int, int, int]:
    """Available, held and spent of an account; all of it is always what was granted."""
    balance = await ledger.balance(account)
    assert balance is not None
    parts = (
        balance.available_nanodollars,
        balance.held_nanodollars,
        balance.spent_nanodollars,
    )
    assert sum(parts) == balance.granted_nanodollars
    return parts


async def eventually(check: Callable[[], object], seconds: float = 10.0) -> None:
    """Returns once `check()`, awaited if need be, is true; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        for wait_ms in itertools.count():
            seen = check()
            if await seen if isinstance(seen, Awaitable) else seen:
                return
            await asyncio.sleep(min(wait_ms, 50) / 1000)


Finish = Callable[[Ledger, str], Awaitable[object]]


async def finish_by_settle(ledger: Ledger, hold_id: str) -> object:
    """Ends a hold with a charge."""
    return await ledger.settle(SettleRequest(hold_id, "acme", 1))


async def finish_by_void(ledger: Ledger, hold_id: str) -> object:
    """Ends a hold with nothing charged."""
    return await ledger.void(hold_id, "acme")


async def finish_by_sweep(ledger: Ledger, hold_id: str) -> object:
    """Ends a hold as its holder's death would."""
    return await Sweeper(ledger).run_once()


class LedgerContract:
    """The promises of `Ledger`, one test each."""

    pytestmark = pytest.mark.anyio

    async def test_grant_adds_once_however_often_it_comes(self, ledger: Ledger) -> None:
        """A payment provider repeats its webhook; the credit is there once."""
        first = await ledger.grant("evt1", "acme", 500)
        again = await ledger.grant("evt1", "acme", 500)
        assert (first.available_nanodollars, first.duplicate) == (500, False)
        assert (again.available_nanodollars, again.duplicate) == (500, True)
        assert await money(ledger) == (500, 0, 0)

    @pytest.mark.parametrize(("account", "amount"), [("acme", 501), ("other", 500)])
    async def test_grant_id_with_another_meaning_is_an_error(
        self, ledger: Ledger, account: str, amount: int
    ) -> None:
        """An external id stands for one account and one amount, also across shards."""
        await ledger.grant("evt1", "acme", 500)
        with pytest.raises(IdConflict):
            await ledger.grant("evt1", account, amount)
        assert await money(ledger) == (500, 0, 0)

    async def test_grant_above_what_is_counted_exactly_is_refused(self, ledger: Ledger) -> None:
        """A balance stays below 2**53, also with what is held."""
        with pytest.raises(GrantTooLarge):
            await ledger.grant("evt1", "acme", LARGEST_BALANCE_NANODOLLARS + 1)
        await ledger.grant("evt2", "acme", LARGEST_BALANCE_NANODOLLARS)
        await ledger.reserve(hold("r1", LARGEST_BALANCE_NANODOLLARS))
        with pytest.raises(GrantTooLarge):
            await ledger.grant("evt3", "acme", 1)
        assert (await ledger.settle(SettleRequest("r1", "acme", 1))).available_nanodollars == (
            LARGEST_BALANCE_NANODOLLARS - 1
        )
        assert (await ledger.grant("evt4", "acme", 1)).available_nanodollars == (
            LARGEST_BALANCE_NANODOLLARS
        )

    async def test_largest_sums_stay_exact(self, ledger: Ledger) -> None:
        """No digit is lost near the largest balance, where doubles turn to exponents."""
        await ledger.grant("evt1", "acme", 3_999_999_999_999_999)
        await ledger.reserve(hold("r1", 1_800_000_000_000_001))
        await ledger.settle(SettleRequest("r1", "acme", 1_234_567_890_123_457))
        assert await money(ledger) == (2_765_432_109_876_542, 0, 1_234_567_890_123_457)

    async def test_reserve_then_settle_charges_and_gives_back_the_rest(
        self, ledger: Ledger
    ) -> None:
        """A hold becomes a charge; what was not charged is available again."""
        await ledger.grant("evt1", "acme", 1_000)
        reservation = await ledger.reserve(hold("r1", 600))
        assert reservation == Reservation("r1", "acme", 600, 400, duplicate=False)
        assert await money(ledger) == (400, 600, 0)
        settled = await ledger.settle(SettleRequest("r1", "acme", 250, 777))
        assert settled == Settlement(HoldState.SETTLED, 250, 750)
        assert await money(ledger) == (750, 0, 250)

    async def test_settle_writes_one_line_that_says_everything(self, ledger: Ledger) -> None:
        """The journal line carries the figures, the meta and the server's time."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        await ledger.settle(SettleRequest("r1", "acme", 250, 777_777, meta=META))
        await ledger.settle(SettleRequest("r1", "acme", 250, 777_777, meta=META))
        grant, line = await ledger.journal_tail("acme")
        assert (grant.type, grant.id, grant.charge_nanodollars) == ("G", "evt1", 1_000)
        assert (line.type, line.id, line.account, line.key) == ("S", "r1", "acme", "k1")
        assert (line.charge_nanodollars, line.cost_picodollars) == (250, 777_777)
        assert (line.model, line.endpoint, line.tokens) == ("demo/fake", "fake", META.tokens)
        assert (line.markup_bp, line.price_version, line.flags) == (500, "v1", ("own_count",))
        assert line.at_us >= grant.at_us > 1_700_000_000_000_000

    async def test_settle_of_nothing_still_writes_its_line(self, ledger: Ledger) -> None:
        """A finished answer that costs nothing is on record."""
        await ledger.reserve(hold("r1", 0, "nobody"))
        await ledger.settle(SettleRequest("r1", "nobody", 0))
        assert [line.type for line in await ledger.journal_tail("nobody")] == ["S"]

    async def test_settle_above_the_hold_takes_the_hold_and_says_so(self, ledger: Ledger) -> None:
        """The hold is the last line of defense: nothing beyond it is ever taken."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        settled = await ledger.settle(SettleRequest("r1", "acme", 601))
        assert (settled.charge_nanodollars, settled.capped) == (600, True)
        assert (await ledger.journal_tail("acme"))[-1].flags == ("own_count", "capped")
        assert (await ledger.settle(SettleRequest("r1", "acme", 601))).capped

    async def test_settle_of_an_unknown_id_changes_nothing_and_says_so(
        self, ledger: Ledger
    ) -> None:
        """A charge that nobody holds is the caller's to keep, not dropped as done."""
        await ledger.grant("evt1", "acme", 1_000)
        assert (await ledger.settle(SettleRequest("r1", "acme", 5))).state is HoldState.UNKNOWN
        assert await money(ledger) == (1_000, 0, 0)

    async def test_void_gives_everything_back_without_a_line(self, ledger: Ledger) -> None:
        """A failed request costs nothing and is not in the journal."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        assert await ledger.void("r1", "acme") == Settlement(HoldState.VOIDED, 0, 1_000)
        assert await money(ledger) == (1_000, 0, 0)
        assert [line.type for line in await ledger.journal_tail("acme")] == ["G"]

    async def test_an_end_stands_and_later_calls_are_answered_with_it(self, ledger: Ledger) -> None:
        """Whatever comes after the first end changes nothing and learns how it ended."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        await ledger.reserve(hold("r2", 100))
        first = await ledger.settle(SettleRequest("r1", "acme", 250))
        await ledger.void("r2", "acme")
        before = await ledger.balance("acme")
        again = await ledger.settle(SettleRequest("r1", "acme", 999))
        voided = await ledger.void("r1", "acme")
        late = await ledger.settle(SettleRequest("r2", "acme", 50))
        assert (again.state, again.charge_nanodollars, again.duplicate) == ("settled", 250, True)
        assert again == voided
        assert again.available_nanodollars == first.available_nanodollars
        assert (late.state, late.charge_nanodollars, late.duplicate) == ("voided", 0, True)
        assert await ledger.balance("acme") == before

    async def test_reserve_again_returns_the_same_grant(self, ledger: Ledger) -> None:
        """A repeated reservation holds once and is never priced anew."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        again = await ledger.reserve(hold("r1", 900))
        assert again == Reservation("r1", "acme", 600, 400, duplicate=True)

    @pytest.mark.parametrize("finish", [finish_by_settle, finish_by_void, finish_by_sweep])
    async def test_reserve_of_a_finished_id_is_refused(
        self, expiring_ledger: Ledger, finish: Finish
    ) -> None:
        """A reservation that arrives after its own end does not open it again."""
        await expiring_ledger.grant("evt1", "acme", 1_000)
        await expiring_ledger.reserve(hold("r1", 600))
        await finish(expiring_ledger, "r1")
        with pytest.raises(ReservationFinished):
            await expiring_ledger.reserve(hold("r1", 600))
        assert (await money(expiring_ledger))[1] == 0

    async def test_void_that_overtakes_its_reserve_still_wins(self, ledger: Ledger) -> None:
        """After a time-out the caller voids; the reserve that was on its way then holds nothing."""
        await ledger.grant("evt1", "acme", 1_000)
        assert (await ledger.void("r1", "acme")).state is HoldState.VOIDED
        with pytest.raises(ReservationFinished):
            await ledger.reserve(hold("r1", 600))
        assert await money(ledger) == (1_000, 0, 0)

    async def test_reserve_beyond_the_credit_is_refused_with_the_shortfall(
        self, ledger: Ledger
    ) -> None:
        """The refusal names what is there, what was needed and the difference; nothing is held."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 600))
        with pytest.raises(PaymentRequired) as refused:
            await ledger.reserve(hold("r2", 401))
        error = refused.value
        assert (error.source, error.available_nanodollars) == ("credits", 400)
        assert (error.required_nanodollars, error.shortfall_nanodollars) == (401, 1)
        assert await money(ledger) == (400, 600, 0)

    async def test_unknown_account_has_nothing_but_may_hold_nothing(self, ledger: Ledger) -> None:
        """Free models pass at a balance of 0, priced ones do not."""
        with pytest.raises(PaymentRequired):
            await ledger.reserve(hold("r1", 1, "nobody"))
        assert await ledger.balance("nobody") is None
        await ledger.reserve(hold("r2", 0, "nobody"))
        assert (await ledger.void("r2", "nobody")).available_nanodollars == 0

    async def test_created_account_is_empty_and_creating_keeps_money(self, ledger: Ledger) -> None:
        """Making an account again never touches its credit."""
        await ledger.create_account("acme")
        assert await ledger.balance("acme") == Balance("acme", 0, 0, 0, 0, 0)
        await ledger.grant("evt1", "acme", 5)
        await ledger.create_account("acme")
        assert await money(ledger) == (5, 0, 0)

    async def test_key_limit_counts_spent_and_held_together(self, ledger: Ledger) -> None:
        """A key with a limit cannot pass it, however its requests overlap; other keys go on."""
        await ledger.grant("evt1", "acme", 10_000)
        await ledger.reserve(hold("r1", 600, key_limit_nanodollars=1_000))
        await ledger.settle(SettleRequest("r1", "acme", 500))
        await ledger.reserve(hold("r2", 400, key_limit_nanodollars=1_000))
        with pytest.raises(PaymentRequired) as refused:
            await ledger.reserve(hold("r3", 101, key_limit_nanodollars=1_000))
        assert (refused.value.source, refused.value.available_nanodollars) == ("key_limit", 100)
        await ledger.reserve(hold("r4", 101, key="k2", key_limit_nanodollars=1_000))

    async def test_refused_request_leaves_no_trace_in_any_limit(self, ledger: Ledger) -> None:
        """All or nothing: a limit that had room keeps it when another refuses."""
        await ledger.grant("evt1", "acme", 1_000)
        roomy = Limits(rpm=2, tpm=100).of_account()
        tight = Limits(concurrency=1).of_key("k1")
        await ledger.reserve(hold("r1", 1, limits=tight))
        for attempt in range(5):
            with pytest.raises(LimitExceeded):
                await ledger.reserve(
                    hold(f"no{attempt}", 1, estimated_tokens=50, limits=roomy + tight)
                )
        await ledger.reserve(hold("r2", 1, estimated_tokens=50, limits=roomy))
        await ledger.reserve(hold("r3", 1, estimated_tokens=50, limits=roomy))
        with pytest.raises(LimitExceeded) as refused:
            await ledger.reserve(hold("r4", 1, limits=roomy))
        assert refused.value.name == "account.rpm"

    async def test_money_is_refused_before_limits(self, ledger: Ledger) -> None:
        """Who is both out of credit and over a limit hears of the credit."""
        await ledger.grant("evt1", "acme", 10)
        limits = Limits(concurrency=1).of_key("k1")
        await ledger.reserve(hold("r1", 1, limits=limits))
        with pytest.raises(PaymentRequired):
            await ledger.reserve(hold("r2", 100, limits=limits))

    @pytest.mark.parametrize("finish", [finish_by_settle, finish_by_void, finish_by_sweep])
    @pytest.mark.parametrize("scope", ["key", "account"])
    async def test_concurrency_comes_back_with_every_end(
        self, expiring_ledger: Ledger, finish: Finish, scope: str
    ) -> None:
        """Settled, voided or swept, a place is free again, once."""
        ledger = expiring_ledger
        await ledger.grant("evt1", "acme", 1_000)
        limits = Limits(concurrency=1)
        dimensions = limits.of_key("k1") if scope == "key" else limits.of_account()
        for number in range(3):
            await ledger.reserve(hold(f"r{number}", 10, limits=dimensions))
            with pytest.raises(LimitExceeded) as refused:
                await ledger.reserve(hold("no", 10, limits=dimensions))
            assert refused.value.name == f"{scope}.concurrency"
            assert refused.value.retry_after_s > 0
            await finish(ledger, f"r{number}")
            await finish(ledger, f"r{number}")

    async def test_a_thousand_at_once_with_credit_for_forty_pass_forty(
        self, ledger: Ledger
    ) -> None:
        """Overspending under concurrency is impossible, not unlikely."""
        await ledger.grant("evt1", "acme", 40 * 25)
        results = await asyncio.gather(
            *(ledger.reserve(hold(f"r{number}", 25)) for number in range(1_000)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Reservation) for result in results) == 40
        assert sum(isinstance(result, PaymentRequired) for result in results) == 960
        assert await money(ledger) == (0, 1_000, 0)

    async def test_progress_keeps_a_hold_open_and_names_the_lost(
        self, ledger: Ledger, expiring_ledger: Ledger
    ) -> None:
        """A renewed hold is not swept; who asks to renew a finished one is told."""
        await ledger.grant("evt1", "acme", 1_000)
        await expiring_ledger.reserve(hold("r1", 600))
        lost = await ledger.progress(
            [
                Checkpoint("r1", "acme", 5),
                Checkpoint("gone", "acme", 5),
                Checkpoint("far", "else", 5),
            ]
        )
        assert lost == ("gone", "far")
        swept = await Sweeper(ledger).run_once()
        assert (swept.open_holds, swept.captured, swept.released) == (1, 0, 0)

    async def test_sweep_captures_the_last_checkpoint_at_most_the_hold(
        self, expiring_ledger: Ledger
    ) -> None:
        """A dead holder's request costs what was delivered by its last sign of life."""
        ledger = expiring_ledger
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 300))
        await ledger.reserve(hold("r2", 300))
        await ledger.progress([Checkpoint("r1", "acme", 10), Checkpoint("r2", "acme", 10)])
        await ledger.progress([Checkpoint("r1", "acme", 120, 99), Checkpoint("r2", "acme", 301)])
        swept = await Sweeper(ledger).run_once()
        assert (swept.open_holds, swept.captured, swept.captured_nanodollars) == (0, 2, 420)
        assert await money(ledger) == (580, 0, 420)
        lines = {line.id: line for line in (await ledger.journal_tail("acme"))[1:]}
        assert {line.type for line in lines.values()} == {"X"}
        assert (lines["r1"].charge_nanodollars, lines["r1"].cost_picodollars) == (120, 99)
        assert lines["r1"].model == "demo/fake"
        assert "expired" in lines["r1"].flags
        late = await ledger.settle(SettleRequest("r1", "acme", 200))
        assert (late.state, late.charge_nanodollars) == (HoldState.CAPTURED, 120)
        assert await money(ledger) == (580, 0, 420)

    async def test_sweep_without_a_checkpoint_gives_back_without_a_line(
        self, expiring_ledger: Ledger
    ) -> None:
        """Nothing delivered, nothing charged; a late settle still hears of the capture."""
        await expiring_ledger.grant("evt1", "acme", 1_000)
        await expiring_ledger.reserve(hold("r1", 300))
        swept = await Sweeper(expiring_ledger).run_once()
        assert (swept.captured, swept.released) == (0, 1)
        assert await money(expiring_ledger) == (1_000, 0, 0)
        assert [line.type for line in await expiring_ledger.journal_tail("acme")] == ["G"]
        late = await expiring_ledger.settle(SettleRequest("r1", "acme", 200))
        assert (late.state, late.charge_nanodollars) == (HoldState.CAPTURED, 0)

    async def test_hold_renewed_after_it_was_found_due_is_left_alone(
        self, ledger: Ledger, expiring_ledger: Ledger
    ) -> None:
        """Between looking and acting a holder may speak up, or finish; then nothing is captured."""
        await ledger.grant("evt1", "acme", 1_000)
        for hold_id in ("r1", "r2", "r3"):
            await expiring_ledger.reserve(hold(hold_id, 300))
        await expiring_ledger.progress([Checkpoint("r3", "acme", 30)])
        found = await ledger.due()
        assert found.open_holds == 3
        await ledger.progress([Checkpoint("r1", "acme", 10)])
        await ledger.settle(SettleRequest("r2", "acme", 20))
        charges = dict(zip(found.due, await ledger.expire(found.due), strict=True))
        assert {one.hold_id: charge for one, charge in charges.items()} == {
            "r1": -1,
            "r2": -1,
            "r3": 30,
        }
        assert await money(ledger) == (650, 300, 50)

    async def test_two_sweepers_at_once_capture_once(self, expiring_ledger: Ledger) -> None:
        """Every replica sweeps; a hold is charged once."""
        ledger = expiring_ledger
        await ledger.grant("evt1", "acme", 10_000)
        ids = [f"r{number}" for number in range(150)]
        await asyncio.gather(*(ledger.reserve(hold(hold_id, 20)) for hold_id in ids))
        await ledger.progress([Checkpoint(hold_id, "acme", 7) for hold_id in ids])
        swept = await asyncio.gather(Sweeper(ledger).run_once(), Sweeper(ledger).run_once())
        assert sum(one.captured for one in swept) == 150
        assert await money(ledger) == (10_000 - 150 * 7, 0, 150 * 7)
        assert len(await ledger.journal_tail("acme", 1_000)) == 151

    async def test_generation_record_is_kept_for_its_account_only(self, ledger: Ledger) -> None:
        """The record is returned as it was given; another account does not see it."""
        await ledger.grant("evt1", "acme", 1_000)
        await ledger.reserve(hold("r1", 300))
        await ledger.reserve(hold("r2", 300))
        assert await ledger.generation("acme", "r1") is None
        await ledger.settle(SettleRequest("r1", "acme", 1, record=b'{"a":"line\\nbreak"}'))
        await ledger.void("r2", "acme", b'{"b":2}')
        assert await ledger.generation("acme", "r1") == b'{"a":"line\\nbreak"}'
        assert await ledger.generation("acme", "r2") == b'{"b":2}'
        assert await ledger.generation("other", "r1") is None

    async def test_captured_id_gets_a_record_of_the_ledger_own(
        self, expiring_ledger: Ledger
    ) -> None:
        """The holder is dead, so the ledger says what it knows."""
        await expiring_ledger.grant("evt1", "acme", 1_000)
        await expiring_ledger.reserve(hold("r1", 300))
        await expiring_ledger.progress([Checkpoint("r1", "acme", 9)])
        await Sweeper(expiring_ledger).run_once()
        record = await expiring_ledger.generation("acme", "r1")
        assert record is not None
        assert msgspec.json.decode(record) == {
            "id": "r1",
            "account": "acme",
            "key": "k1",
            "state": "captured",
            "charge_nanodollars": 9,
            "meta": msgspec.json.decode(msgspec.json.encode(META)),
        }

    async def test_verify_agrees_after_a_bit_of_everything(
        self, ledger: Ledger, expiring_ledger: Ledger
    ) -> None:
        """The sums are those of all accounts, and the journal explains them."""
        for number in range(20):
            account = f"account {number}"
            await ledger.grant(f"evt{number}", account, 1_000)
            await ledger.reserve(hold(f"s{number}", 100, account))
            await ledger.reserve(hold(f"o{number}", 200, account, key="k2"))
            await expiring_ledger.reserve(hold(f"x{number}", 300, account))
            await expiring_ledger.progress([Checkpoint(f"x{number}", account, 30)])
            await ledger.settle(SettleRequest(f"s{number}", account, 10))
        await Sweeper(ledger).run_once()
        report = await ledger.verify()
        assert report.as_dict() == {
            "ok": True,
            "accounts": 20,
            "granted_nanodollars": 20_000,
            "available_nanodollars": 20 * (1_000 - 200 - 10 - 30),
            "held_nanodollars": 20 * 200,
            "spent_nanodollars": 20 * 40,
            "problems": [],
        }

    @pytest.mark.parametrize(
        "bad",
        [hold("", 1), hold("r1", 1, ""), hold("r1", -1), hold("a\nb", 1), hold("r1", 1, "x" * 201)],
    )
    async def test_unusable_input_is_refused_before_redis(
        self, ledger: Ledger, bad: HoldRequest
    ) -> None:
        """Names that would break records, and negative money, are our callers' faults."""
        with pytest.raises(ValueError, match=r"name|negative"):
            await ledger.reserve(bad)
