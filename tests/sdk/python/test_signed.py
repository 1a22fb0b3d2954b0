"""A client that holds its own key: prepare, sign with eth-account, submit."""

import json
import urllib.request

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from conftest import QUESTION


class Refused(Exception):
    """An error of JSON-RPC."""


def call(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(f"{url}/rpc", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        said = json.load(response)
    if "error" in said:
        raise Refused(said["error"]["data"]["code"], said["error"])
    return said["result"]


def signed(prepared, key):
    """What is submitted. The typed data goes into eth-account as it came."""
    signature = Account.sign_typed_data(key, full_message=prepared["typedData"]).signature
    parts = {name: prepared[name] for name in ["chainId", "order", "terms", "grants"]}
    return {**parts, "signature": "0x" + signature.hex().removeprefix("0x")}


@pytest.fixture
def account():
    return Account.create()


@pytest.fixture
def request_(model):
    return {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 16}


def test_a_wallet_buys_an_answer(url, request_, account, verify, tmp_path):
    prepared = call(url, "assay_prepare", request_, {"buyer": account.address})
    message = encode_typed_data(full_message=prepared["typedData"])
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    assert "0x" + digest.hex() == prepared["digest"]

    order = signed(prepared, account.key)
    answer = call(url, "assay_submit", request_, order)
    assert answer["text"].strip() == "57"
    assert answer["order"] == prepared["digest"]
    receipt = answer["receipt"]
    assert receipt["order"]["buyer"] == account.address.lower()
    assert int(receipt["receipt"]["price"]) <= int(prepared["maxPrice"])
    # The gateway's channel paid.
    paid = int(receipt["receipt"]["channelAfter"]) - int(receipt["receipt"]["channelBefore"])
    assert paid == int(receipt["receipt"]["price"]) > 0

    kept = call(url, "assay_receipt", prepared["digest"])
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(kept))
    code, said = verify(path)
    assert code == 0, said
    # The same order again is the same answer.
    assert call(url, "assay_submit", request_, order) == answer


def test_another_key_buys_nothing(url, request_, account):
    prepared = call(url, "assay_prepare", request_, {"buyer": account.address})
    with pytest.raises(Refused, match="wrong_signature"):
        call(url, "assay_submit", request_, signed(prepared, Account.create().key))


def test_another_request_is_not_what_was_signed(url, request_, account):
    prepared = call(url, "assay_prepare", request_, {"buyer": account.address})
    other = {**request_, "max_tokens": 17}
    with pytest.raises(Refused, match="order_mismatch"):
        call(url, "assay_submit", other, signed(prepared, account.key))
