"""x402's own Python client pays for answers of a network, unmodified.

`cargo xtask sdk` starts the network (`assay up --x402`) and sets the variables. Money is ASY, which is
no asset that the client knows, so its spend controls are off.
"""

import asyncio
import base64
import json
import os
import secrets
import time
from pathlib import Path

import httpx
import pytest
from eth_account import Account
from web3 import Web3
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm.batch_settlement.client import (
    BatchSettlementEvmScheme,
    BatchSettlementEvmSchemeOptions,
)
from x402.mechanisms.evm.batch_settlement.constants import BATCH_SETTLEMENT_ADDRESS
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSignerWithRPC

URL = os.environ["ASSAY_URL"]
RPC = os.environ["ASSAY_CHAIN_RPC"]
BOOK = json.loads(os.environ["ASSAY_CONTRACTS"])
DATA = Path(os.environ["ASSAY_DATA_DIR"])
CHAT = f"{URL}/v1/chat/completions"
ASY = 10**18
ARTIFACTS = Path(__file__).parents[3] / "contracts" / "artifacts"

w3 = Web3(Web3.HTTPProvider(RPC))
NETWORK = f"eip155:{w3.eth.chain_id}"


def contract(name, address):
    abi = json.loads((ARTIFACTS / f"{name}.json").read_text())["abi"]
    return w3.eth.contract(Web3.to_checksum_address(address), abi=abi)


token = contract("AssayToken", BOOK["assayToken"]["address"])
channels = contract("Channels", BATCH_SETTLEMENT_ADDRESS)


def send(admin, call):
    transaction = call.build_transaction(
        {"from": admin.address, "nonce": w3.eth.get_transaction_count(admin.address)}
    )
    sent = w3.eth.send_raw_transaction(admin.sign_transaction(transaction).raw_transaction)
    assert w3.eth.wait_for_transaction_receipt(sent, timeout=30)["status"] == 1


@pytest.fixture
def payer():
    """An account with one ASY, and no coin for gas."""
    account = Account.create()
    admin = Account.from_key((DATA / "admin" / "key").read_text().strip())
    send(admin, token.functions.transfer(account.address, ASY))
    return account


def body(**more):
    model = httpx.get(f"{URL}/v1/models").json()["data"][0]["id"]
    asked = {"model": model, "temperature": 0, "max_tokens": 16}
    return {**asked, "messages": [{"role": "user", "content": "12+45="}], **more}


def exact(payer):
    return x402Client().register(NETWORK, ExactEvmScheme(payer)).set_spend_controls(False)


def batch(payer, salt=None):
    options = BatchSettlementEvmSchemeOptions(salt=salt)
    scheme = BatchSettlementEvmScheme(EthAccountSignerWithRPC(payer, RPC), options)
    client = x402Client().register(NETWORK, scheme).set_spend_controls(False)
    return client, scheme


def settled(response):
    return json.loads(base64.b64decode(response.headers["payment-response"]))


def ask(client, **more):
    async def asked():
        async with x402HttpxClient(client, timeout=60) as http:
            return await http.post(CHAT, json=body(**more))

    return asyncio.run(asked())


def streamed(response):
    """The text of a streamed answer, which must be whole."""
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert not [chunk for chunk in chunks if "error" in chunk]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def test_without_payment_there_is_a_price():
    response = httpx.post(CHAT, json=body())
    assert response.status_code == 402
    required = json.loads(base64.b64decode(response.headers["payment-required"]))
    assert [a["scheme"] for a in required["accepts"]] == ["exact", "batch-settlement"]
    assert all(int(a["amount"]) > 0 and a["network"] == NETWORK for a in required["accepts"])


@pytest.mark.parametrize("stream", [False, True])
def test_exact_moves_the_price_before_the_answer(payer, stream):
    response = ask(exact(payer), stream=stream)
    assert response.status_code == 200, response.text
    said = settled(response)
    receipt = w3.eth.get_transaction_receipt(said["transaction"])
    assert receipt["status"] == 1
    assert token.functions.balanceOf(payer.address).call() == ASY - int(said["amount"])
    if stream:
        assert "57" in streamed(response)
    else:
        assert "57" in response.json()["choices"][0]["message"]["content"]


def test_a_retry_with_the_same_identifier_is_not_paid_twice(payer):
    client = exact(payer)
    identifier = f"pay_{secrets.token_hex(16)}"

    def name(context):
        context.payment_payload.extensions["payment-identifier"]["info"]["id"] = identifier

    client.on_after_payment_creation(name)
    first, second = ask(client), ask(client)
    assert first.status_code == second.status_code == 200, second.text
    assert first.json() == second.json()
    paid = ASY - token.functions.balanceOf(payer.address).call()
    assert paid == int(settled(first)["amount"])
    assert ask(client, max_tokens=17).status_code == 409


def test_a_channel_pays_for_many_answers_and_gives_back_the_rest(payer):
    client, scheme = batch(payer)
    first = ask(client)
    assert first.status_code == 200, first.text
    said = settled(first)
    assert w3.eth.get_transaction_receipt(said["transaction"])["status"] == 1
    channel = said["extra"]["channelState"]["channelId"]
    cost = charged = int(said["extra"]["chargedAmount"])
    deposit = ASY - token.functions.balanceOf(payer.address).call()
    for stream in [False, True, False]:
        response = ask(client, stream=stream)
        assert response.status_code == 200, response.text
        said = settled(response)
        assert said["transaction"] == ""
        charged += int(said["extra"]["chargedAmount"])
        assert int(said["extra"]["channelState"]["chargedCumulativeAmount"]) == charged
        if stream:
            assert "57" in streamed(response)
    assert ASY - token.functions.balanceOf(payer.address).call() == deposit
    # The gateway claims by itself what the four answers did cost: the stream was charged more at first.
    until = time.time() + 30
    while channels.functions.channels(channel).call()[1] < 4 * cost:
        assert time.time() < until, "nothing was claimed"
        time.sleep(0.2)
    refunded = scheme.refund(CHAT)
    assert refunded.success
    assert token.functions.balanceOf(payer.address).call() == ASY - 4 * cost


def test_a_client_that_forgot_is_corrected(payer):
    client, _ = batch(payer)
    charged = int(settled(ask(client))["extra"]["chargedAmount"])
    again, _ = batch(payer)
    # The same voucher for the same question would be the same payment, and get the same answer.
    response = ask(again, max_tokens=17)
    assert response.status_code == 200, response.text
    state = settled(response)["extra"]["channelState"]
    assert int(state["chargedCumulativeAmount"]) > charged


def test_lanes_are_channels_that_differ_by_salt(payer):
    lanes = [batch(payer, "0x" + f"{n:02x}" * 32)[0] for n in range(3)]

    async def all_at_once():
        async def one(client):
            async with x402HttpxClient(client, timeout=60) as http:
                return await http.post(CHAT, json=body())

        return await asyncio.gather(*map(one, lanes))

    assert [r.status_code for r in asyncio.run(all_at_once())] == [200] * 3
