"""The ledger keeps the contract."""

from __future__ import annotations

from tests.contracts.ledger_contract import LedgerContract


class TestLedger(LedgerContract):
    """Redis functions on a real Valkey."""
