"""Writes channels.json: ids and digests of payment channels as the x402 SDK and eth-account compute them.

The SDK's own types, type strings and collector encodings are used under a domain of our deployment, so
the vectors hold the contract and the public clients together.

    pip install 'x402[evm]==2.25.0' && python3 tests/vectors/channels.py
"""

import json
import pathlib

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from x402.mechanisms.evm.batch_settlement import constants
from x402.mechanisms.evm.batch_settlement.encoding import (
    build_erc3009_collector_data,
    build_erc3009_deposit_nonce,
)
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig
from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id

HERE = pathlib.Path(__file__).parent
KEY = "0x" + "07" * 32
SIGNER = Account.from_key(KEY)
#: The deployments the vectors are for: the public one, so that the SDK's own id can be asked, and another.
DEPLOYMENTS = [(84532, constants.BATCH_SETTLEMENT_ADDRESS), (7777, "0x" + "c4" * 20)]


def digest(deployment, types, message):
    """The EIP-712 digest of a message, and the test key's signature."""
    chain, contract = deployment
    typed = encode_typed_data(
        domain_data={
            "name": constants.BATCH_SETTLEMENT_DOMAIN_NAME,
            "version": constants.BATCH_SETTLEMENT_DOMAIN_VERSION,
            "chainId": chain,
            "verifyingContract": contract,
        },
        message_types=types,
        message_data=message,
    )
    signature = "0x" + bytes(SIGNER.sign_message(typed).signature).hex()
    return "0x" + bytes(_hash_eip191_message(typed)).hex(), signature


def address(byte):
    return "0x" + f"{byte:02x}" * 20


def config(**changes):
    return {
        "payer": SIGNER.address, "payerAuthorizer": SIGNER.address, "receiver": address(0x11),
        "receiverAuthorizer": address(0x22), "token": address(0x33), "withdrawDelay": 900,
        "salt": "0x" + "00" * 32,
    } | changes  # fmt: skip


def channel(deployment, fields):
    """The id of a channel; the SDK must agree where it knows the deployment."""
    found, _ = digest(deployment, constants.CHANNEL_CONFIG_TYPES, fields)
    if deployment == DEPLOYMENTS[0]:
        theirs = ChannelConfig(
            payer=fields["payer"], payer_authorizer=fields["payerAuthorizer"],
            receiver=fields["receiver"], receiver_authorizer=fields["receiverAuthorizer"],
            token=fields["token"], withdraw_delay=fields["withdrawDelay"], salt=fields["salt"],
        )  # fmt: skip
        assert compute_channel_id(theirs, deployment[0]) == found
    return found


def case(deployment, fields, ceiling, claimed, nonce, amount):
    """Everything that is signed about one channel."""
    name = channel(deployment, fields)
    voucher, signature = digest(
        deployment, constants.VOUCHER_TYPES, {"channelId": name, "maxClaimableAmount": ceiling}
    )
    refund, _ = digest(
        deployment, constants.REFUND_TYPES, {"channelId": name, "nonce": nonce, "amount": amount}
    )
    entry = {"channelId": name, "maxClaimableAmount": ceiling, "totalClaimed": claimed}
    single, _ = digest(deployment, constants.CLAIM_BATCH_TYPES, {"claims": [entry]})
    double, _ = digest(deployment, constants.CLAIM_BATCH_TYPES, {"claims": [entry, entry]})
    salt = 2**255 + 9
    return {
        "chainId": deployment[0], "contract": deployment[1],
        "config": {key: str(value) for key, value in fields.items()}, "channelId": name,
        "maxClaimableAmount": str(ceiling), "voucher": voucher, "signature": signature,
        "totalClaimed": str(claimed), "claimBatch": single, "claimBatchTwice": double,
        "refundNonce": str(nonce), "refundAmount": str(amount), "refund": refund,
        "depositSalt": str(salt), "depositNonce": build_erc3009_deposit_nonce(name, salt),
        "collectorData": "0x" + bytes(build_erc3009_collector_data("3", "4", str(salt), signature)).hex(),
    }  # fmt: skip


CASES = [
    case(DEPLOYMENTS[0], config(), 1_000_000, 900_000, 0, 5),
    case(DEPLOYMENTS[0], config(payerAuthorizer=address(0), withdrawDelay=2_592_000,
                                salt="0x" + "ab" * 32), 2**128 - 1, 2**128 - 1, 2**256 - 1, 2**128 - 1),
    case(DEPLOYMENTS[1], config(receiver=address(0xFF), withdrawDelay=2**40 - 1), 0, 0, 7, 0),
]  # fmt: skip

if __name__ == "__main__":
    (HERE / "channels.json").write_text(json.dumps({"key": KEY, "cases": CASES}, indent=1) + "\n")
