"""Keys: what they sign, what they refuse to sign twice, and how they are kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.eip712 import (
    CURVE_ORDER,
    Domain,
    SignatureInvalid,
    Submission,
    sign_submission,
    submission_digest,
    submission_signer,
)
from ledger.signing import (
    Key,
    KeystoreFault,
    SigningGuard,
    SigningRefused,
    create_keystore,
    open_keystore,
    read_password,
)
from ledger.transactions import Transaction, TransactionInvalid, parse_transaction, transaction_hash
from proofs.errors import LocalFault

DOMAIN = Domain(31337, b"\x11" * 20)
PAYLOAD = Submission(3, 1, keccak(text="bundle"), 1234)
KEY = Key.of(keccak(text="a key for these tests"))
CHEAP = 2  # scrypt's N; real keystores use the default


@settings(max_examples=25)
@given(
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**64 - 1),
)
def test_the_digest_is_that_of_eip712(chain_id: int, number: int, member: int, bundle: bytes, spent: int) -> None:
    """Compared with eth-account's own encoder of typed data."""
    domain = Domain(chain_id, b"\x22" * 20)
    message = {"round": number, "member": member, "bundle": bundle, "spentMicro": spent}
    signable = encode_typed_data(
        {"name": "Candor", "version": "1", "chainId": chain_id, "verifyingContract": "0x" + "22" * 20},
        {
            "Submission": [
                {"name": "round", "type": "uint64"},
                {"name": "member", "type": "uint8"},
                {"name": "bundle", "type": "bytes32"},
                {"name": "spentMicro", "type": "uint64"},
            ]
        },
        message,
    )
    expected = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert submission_digest(domain, Submission(number, member, bundle, spent)) == expected


def test_a_signature_names_its_signer_and_is_deterministic() -> None:
    signature = sign_submission(KEY.secret, DOMAIN, PAYLOAD)
    assert signature == sign_submission(KEY.secret, DOMAIN, PAYLOAD)
    assert submission_signer(DOMAIN, PAYLOAD, signature) == KEY.address
    assert int.from_bytes(signature[32:64]) <= CURVE_ORDER // 2
    for other in (replace(PAYLOAD, round=4), replace(PAYLOAD, member=2), replace(PAYLOAD, spent_micro=0)):
        assert submission_signer(DOMAIN, other, signature) != KEY.address
    for domain in (replace(DOMAIN, chain_id=1), replace(DOMAIN, contract=bytes(20))):
        assert submission_signer(domain, PAYLOAD, signature) != KEY.address


def test_a_malformed_or_mirrored_signature_is_refused() -> None:
    good = sign_submission(KEY.secret, DOMAIN, PAYLOAD)
    mirrored = (CURVE_ORDER - int.from_bytes(good[32:64])).to_bytes(32)
    refused = [
        b"",
        good[:64],
        good + b"\x00",
        good[:64] + b"\x00",
        good[:64] + b"\x1d",
        good[:32] + mirrored + bytes([55 - good[64]]),
        bytes(32) + good[32:],
        good[:32] + bytes(32) + good[64:],
        b"\xff" * 32 + good[32:],
    ]
    for bad in refused:
        with pytest.raises(SignatureInvalid):
            submission_signer(DOMAIN, PAYLOAD, bad)


def test_the_guard_never_signs_two_payloads_for_one_round(tmp_path: Path) -> None:
    guard = SigningGuard(tmp_path / "signed.sqlite")
    first = guard.sign(KEY, DOMAIN, PAYLOAD)
    assert guard.sign(KEY, DOMAIN, PAYLOAD) == first
    for other in (replace(PAYLOAD, bundle=bytes(32)), replace(PAYLOAD, spent_micro=1), replace(PAYLOAD, member=2)):
        with pytest.raises(SigningRefused) as caught:
            guard.sign(KEY, DOMAIN, other)
        assert isinstance(caught.value, LocalFault)
    guard.close()
    reopened = SigningGuard(tmp_path / "signed.sqlite")
    assert reopened.sign(KEY, DOMAIN, PAYLOAD) == first
    with pytest.raises(SigningRefused):
        reopened.sign(KEY, DOMAIN, replace(PAYLOAD, bundle=bytes(32)))
    reopened.close()


def test_other_rounds_chains_contracts_and_keys_are_other_matters(tmp_path: Path) -> None:
    guard = SigningGuard(tmp_path / "signed.sqlite")
    guard.sign(KEY, DOMAIN, PAYLOAD)
    guard.sign(KEY, DOMAIN, replace(PAYLOAD, round=4, bundle=bytes(32)))
    guard.sign(KEY, replace(DOMAIN, chain_id=1), replace(PAYLOAD, bundle=bytes(32)))
    guard.sign(KEY, replace(DOMAIN, contract=bytes(20)), replace(PAYLOAD, bundle=bytes(32)))
    guard.sign(Key.create(), DOMAIN, replace(PAYLOAD, bundle=bytes(32)))
    guard.close()


def test_a_damaged_guard_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "signed.sqlite"
    path.write_bytes(b"this is not a database, but it was one once" * 100)
    with pytest.raises(LocalFault):
        SigningGuard(path)


def test_a_keystore_opens_with_its_password_only(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    created = create_keystore(path, "correct horse", scrypt_n=CHEAP)
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_keystore(path, "correct horse") == created
    assert created.secret.hex() not in path.read_text()
    assert json.loads(path.read_text())["version"] == 3
    assert bytes(Account.decrypt(path.read_text(), "correct horse")) == created.secret  # any wallet can open it
    with pytest.raises(KeystoreFault, match="password is wrong") as caught:
        open_keystore(path, "wrong horse")
    assert "horse" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_keystore_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    create_keystore(path, "password", scrypt_n=CHEAP)
    with pytest.raises(KeystoreFault, match="exists"):
        create_keystore(path, "password", scrypt_n=CHEAP)
    with pytest.raises(KeystoreFault, match="empty password"):
        create_keystore(tmp_path / "other.json", "", scrypt_n=CHEAP)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b"\xff\xfe", b"0" * (1 << 15)])
def test_what_is_no_keystore_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeystoreFault):
        open_keystore(path, "password")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    create_keystore(path, "password", scrypt_n=CHEAP)
    os.chmod(path, 0o644)
    with pytest.raises(KeystoreFault, match="chmod 600"):
        open_keystore(path, "password")
    with pytest.raises(KeystoreFault):
        open_keystore(tmp_path / "missing.json", "password")


def test_the_password_comes_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret words\n")
    path.chmod(0o600)
    assert read_password(path) == "secret words"
    path.chmod(0o640)
    with pytest.raises(KeystoreFault, match="chmod 600"):
        read_password(path)
    assert read_password(None, {"CANDOR_KEY_PASSWORD": "from outside"}.get) == "from outside"
    with pytest.raises(KeystoreFault, match="CANDOR_KEY_PASSWORD"):
        read_password(None, {}.get)


def test_a_key_does_not_show_its_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)
    with pytest.raises(KeystoreFault):
        Key.of(bytes(32))
    with pytest.raises(KeystoreFault):
        Key.of(b"\xff" * 32)


def test_a_transaction_is_read_back_with_its_sender() -> None:
    transaction = Transaction(31337, 7, 10**9, 3 * 10**9, 21000, b"\x33" * 20, 5, b"data")
    raw = KEY.sign_transaction(transaction)
    assert raw == KEY.sign_transaction(transaction)
    assert parse_transaction(raw) == (transaction, KEY.address)
    assert transaction_hash(raw) == keccak(raw)


def test_what_is_no_transaction_is_refused() -> None:
    raw = KEY.sign_transaction(Transaction(1, 0, 1, 1, 21000, b"\x33" * 20, 0, b""))
    bad: list[Any] = [b"", b"\x01" + raw[1:], raw[:-1], raw + b"\x00", b"\x02\xc0", b"\x02" + bytes(100)]
    for data in bad:
        with pytest.raises(TransactionInvalid):
            parse_transaction(data)


# ---- verdicts


def test_a_verifier_answers_a_question_once(tmp_path: Path) -> None:
    guard, key, before, good = SigningGuard(tmp_path / "s.sqlite"), KEY.verifier, bytes(32), bytes(3)
    assert guard.signed_verdicts(key, DOMAIN, 3, before) is None
    signature = guard.sign_verdicts(key, DOMAIN, 3, before, good)
    assert guard.sign_verdicts(key, DOMAIN, 3, before, good) == signature
    with pytest.raises(SigningRefused, match="round 3"):
        guard.sign_verdicts(key, DOMAIN, 3, before, bytes([0, 0, 17]))
    guard.close()
    again = SigningGuard(tmp_path / "s.sqlite")
    assert again.signed_verdicts(key, DOMAIN, 3, before) == (good, signature)
    with pytest.raises(SigningRefused):
        again.sign_verdicts(key, DOMAIN, 3, before, bytes([0, 0, 17]))
    again.close()


def test_another_state_round_contract_or_chain_is_another_question(tmp_path: Path) -> None:
    guard, key, before = SigningGuard(tmp_path / "s.sqlite"), KEY.verifier, bytes(32)
    guard.sign_verdicts(key, DOMAIN, 3, before, bytes(3))
    other = bytes([0, 0, 17])
    for domain, number, transcript in (
        (DOMAIN, 3, b"\x01" * 32),
        (DOMAIN, 4, before),
        (Domain(1, DOMAIN.contract), 3, before),
        (Domain(DOMAIN.chain_id, b"\x12" * 20), 3, before),
    ):
        assert guard.sign_verdicts(key, domain, number, transcript, other)
    guard.close()


def test_the_verifier_key_is_derived_and_shows_no_secret() -> None:
    """KeyGen of the draft: the same for the same secret, another for another, and neither is in a repr."""
    verifier = KEY.verifier
    assert verifier == Key.of(KEY.secret).verifier
    assert verifier.public != Key.of(keccak(KEY.secret)).verifier.public
    assert verifier.secret != int.from_bytes(KEY.secret)
    assert str(verifier.secret) not in repr(KEY) + repr(verifier)
