"""Writes eip712.json, digests of the signed words as eth-account computes them, and serve.json
and grant.json, the same for the word that an operator's key gives once and for delegations.

An implementation that shares no code with ours reads the structs from contracts/src/types, so the
vectors hold the Solidity text, the Rust code and the wallets of the world together.

    pip install eth-account && python3 tests/vectors/eip712.py
"""

import json
import pathlib
import re

from eth_account import Account
from eth_account._utils.encode_typed_data.encoding_and_hashing import hash_struct
from eth_account.messages import _hash_eip191_message, encode_typed_data

HERE = pathlib.Path(__file__).parent
TYPES = HERE.parent.parent / "contracts/src/types"
DOMAIN = [("name", "string"), ("version", "string"), ("chainId", "uint256")]
SIGNER = Account.from_key("0x" + "07" * 32)


def fields(word):
    """The fields of a struct, as eth-account wants them."""
    text = (TYPES / f"{word}.sol").read_text()
    body = re.search(r"struct %s \{(.*?)\n\}" % word, text, re.S).group(1)
    body = re.sub(r"//[^\n]*", "", body)
    return [{"type": kind, "name": name} for kind, name in re.findall(r"([\w\[\]]+)\s+(\w+);", body)]


def signed(word, chain, message):
    """A case of a word that is signed."""
    typed = encode_typed_data(
        full_message={
            "types": {"EIP712Domain": [{"name": n, "type": t} for n, t in DOMAIN], word: fields(word)},
            "primaryType": word,
            "domain": {"name": "Assay", "version": "1", "chainId": chain},
            "message": message,
        }
    )
    return {
        "word": word,
        "chainId": chain,
        "message": {
            name: value if isinstance(value, list) else str(value) for name, value in message.items()
        },
        "digest": "0x" + bytes(_hash_eip191_message(typed)).hex(),
        "signature": "0x" + bytes(SIGNER.sign_message(typed).signature).hex(),
    }


def hashed(word, message):
    """A case of a word that only its struct hash stands for."""
    digest = hash_struct(word, {word: fields(word)}, message)
    message = {name: str(value) for name, value in message.items()}
    return {"word": word, "message": message, "digest": "0x" + digest.hex()}


def bytes32(byte):
    return "0x" + f"{byte:02x}" * 32


def address(byte):
    return "0x" + f"{byte:02x}" * 20


def order(**changes):
    return {
        "buyer": SIGNER.address, "market": address(0), "model": bytes32(1), "request": bytes32(2),
        "prompt": bytes32(3), "promptTokens": 5, "maxTokens": 64, "sampler": bytes32(4),
        "assurance": 0, "audit": 1, "asset": address(0), "maxPrice": 2**100 + 7,
        "deadline": 1_800_000_000, "nonce": 2**200 + 3, "grant": bytes32(0),
    } | changes  # fmt: skip


def receipt(**changes):
    return {
        "order": bytes32(1), "provider": SIGNER.address, "output": bytes32(2), "outputTokens": 3,
        "text": bytes32(3), "finish": 0, "state": bytes32(4), "assurance": 0, "asset": address(0),
        "price": 123_456_789, "channel": bytes32(0), "channelBefore": 0, "channelAfter": 0,
        "started": 1_800_000_000_000, "finished": 1_800_000_000_321,
    } | changes  # fmt: skip


CASES = [
    signed("Order", 7777, order()),
    signed("Order", 1, order(
        market=address(0x11), model=bytes32(0xFF), promptTokens=2**32 - 1, assurance=3, audit=2,
        asset=address(0x22), maxPrice=2**128 - 1, deadline=2**64 - 1, nonce=2**256 - 1,
        grant=bytes32(5))),
    signed("Receipt", 7777, receipt()),
    signed("Receipt", 1, receipt(
        outputTokens=0, finish=3, assurance=3, asset=address(0x33), price=2**128 - 1,
        channel=bytes32(8), channelAfter=2**128 - 1, started=0, finished=2**64 - 1)),
    signed("Offer", 7777, {
        "provider": SIGNER.address, "model": bytes32(1), "assurance": 0, "asset": address(0),
        "priceIn": 10**18, "priceOut": 4 * 10**18, "context": 2048, "expires": 1_800_000_000}),
    hashed("Sampler", {
        "invT_q16": 94548, "topK": 40, "topP_q16": 62259, "minP_q16": 3277, "rep_q16": 72090,
        "freq_q16": -65536, "pres_q16": 131072, "stops": bytes32(1), "bias": bytes32(2),
        "grammar": bytes32(0), "seed": bytes32(9), "choice": 2}),
]

SERVE = [
    signed("Serve", 7777, {"registry": address(0x44), "owner": address(0x55)}),
    signed("Serve", 1, {"registry": address(0xFF), "owner": SIGNER.address}),
]

GRANT = [
    signed("Grant", 7777, {
        "registry": address(0x44), "issuer": SIGNER.address, "holder": address(0x55),
        "models": [], "asset": address(0), "spend": 10**18, "rate": 0, "from": 0,
        "until": 1_800_000_000, "parent": bytes32(0), "nonce": 1}),
    signed("Grant", 1, {
        "registry": address(0xFF), "issuer": SIGNER.address, "holder": address(0x66),
        "models": [bytes32(1), bytes32(0xFE)], "asset": address(0x22), "spend": 2**128 - 1,
        "rate": 2**32 - 1, "from": 2**63, "until": 2**64 - 1, "parent": bytes32(7),
        "nonce": 2**256 - 1}),
]


def write(name, cases):
    document = {"key": "0x" + "07" * 32, "cases": cases}
    (HERE / name).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    write("eip712.json", CASES)
    write("serve.json", SERVE)
    write("grant.json", GRANT)
