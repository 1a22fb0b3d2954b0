"""Receipts, checked by code that shares nothing with ours but the Solidity text of the words."""

import json
import pathlib
import re
import urllib.error
import urllib.request

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from conftest import QUESTION

TYPES = pathlib.Path(__file__).parents[3] / "contracts/src/types"
CODES = {
    "assurance": ["replayable", "attested", "proven", "scored"],
    "audit": ["none", "drawn", "public"],
    "finish": ["eos", "stop", "length", "cancelled"],
}


def fields(word):
    """Types and names of a signed word's fields, as the contracts declare them."""
    body = (TYPES / f"{word}.sol").read_text().split(f"struct {word} {{")[1].split("}")[0]
    body = re.sub(r"//.*", "", body)
    pairs = [declaration.split() for declaration in body.split(";") if declaration.strip()]
    return [{"type": kind, "name": name} for kind, name in pairs]


def typed(word, value, chain):
    """The EIP-712 message that a wallet would be shown."""
    types = fields(word)

    def plain(field):
        found = value[field["name"]]
        if field["name"] in CODES:
            return CODES[field["name"]].index(found)
        if field["type"].startswith("uint") and isinstance(found, str):
            return int(found, 0)
        return found

    domain = [("name", "string"), ("version", "string"), ("chainId", "uint256")]
    return encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain],
                word: types,
            },
            "primaryType": word,
            "domain": {"name": "Assay", "version": "1", "chainId": chain},
            "message": {field["name"]: plain(field) for field in types},
        }
    )


def digest(message):
    return "0x" + keccak(b"\x19" + message.version + message.header + message.body).hex()


def token_root(tokens):
    level = [
        keccak(b"\0" + place.to_bytes(4, "big") + token.to_bytes(4, "big"))
        for place, token in enumerate(tokens)
    ]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    while len(level) > 1:
        level = [keccak(left + right) for left, right in zip(level[::2], level[1::2])]
    return "0x" + level[0].hex()


def get(url):
    with urllib.request.urlopen(url) as response:
        return json.load(response)


@pytest.fixture
def stored(url, answer):
    """The whole answer, as the gateway keeps it."""
    return get(f"{url}/v1/receipts/{answer.id}")


def test_every_answer_carries_its_receipt(answer, stored):
    carried = answer.model_extra["assay"]
    assert carried["schema"] == stored["schema"] == "assay.receipt/1"
    assert carried["receipt"] == stored["receipt"]
    assert carried["text"] == answer.choices[0].message.content
    assert len(carried["output"]) == answer.usage.completion_tokens
    assert len(carried["terms"]["prompt"]) == answer.usage.prompt_tokens


def test_a_stream_carries_its_receipt_at_the_end(client, model, url):
    chunks = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, stream=True
        )
    )
    carried = [c.model_extra["assay"] for c in chunks if (c.model_extra or {}).get("assay")]
    assert len(carried) == 1
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert carried[0]["text"] == text
    stored = get(f"{url}/v1/receipts/{carried[0]['receipt']['order']}")
    assert stored["receipt"] == carried[0]["receipt"]


def test_the_order_is_the_buyers_by_an_independent_wallet(stored):
    message = typed("Order", stored["order"], stored["chainId"])
    assert digest(message) == stored["receipt"]["order"]
    signer = Account.recover_message(message, signature=stored["orderSignature"])
    assert signer.lower() == stored["order"]["buyer"].lower()


def test_the_receipt_is_the_providers_by_an_independent_wallet(stored, url):
    message = typed("Receipt", stored["receipt"], stored["chainId"])
    signer = Account.recover_message(message, signature=stored["receiptSignature"])
    assert signer.lower() == stored["receipt"]["provider"].lower()
    assert signer.lower() != stored["order"]["buyer"].lower()


def test_the_commitments_are_what_they_say(stored):
    assert token_root(stored["terms"]["prompt"]) == stored["order"]["prompt"]
    assert token_root(stored["output"]) == stored["receipt"]["output"]
    assert "0x" + keccak(stored["text"].encode()).hex() == stored["receipt"]["text"]
    assert "0x" + keccak(stored["request"].encode()).hex() == stored["order"]["request"]
    assert json.loads(stored["request"]) == {"messages": QUESTION}


def test_an_unknown_receipt_is_not_found(url):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"{url}/v1/receipts/0x{'00' * 32}")
    assert caught.value.code == 404
    assert json.load(caught.value)["error"]["message"]


def test_a_receipt_verifies(stored, tmp_path, verify):
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(stored))
    code, said = verify(file)
    assert (code, said["verdict"]) == (0, True)


def test_a_response_body_verifies_by_itself(answer, tmp_path, verify):
    file = tmp_path / "response.json"
    file.write_text(answer.model_dump_json())
    code, said = verify(file)
    assert (code, said["verdict"]) == (0, True)


def lie(stored, what):
    """The answer with one thing changed."""
    changed = json.loads(json.dumps(stored))
    if what == "token":
        changed["output"][0] += 1
    elif what == "text":
        changed["text"] = "58"
    elif what == "prompt":
        changed["terms"]["prompt"][1] += 1
    elif what == "price":
        changed["receipt"]["price"] = "1"
    elif what == "state":
        state = changed["receipt"]["state"]
        changed["receipt"]["state"] = state[:-1] + ("0" if state[-1] != "0" else "1")
    elif what == "signature":
        signature = changed["receiptSignature"]
        changed["receiptSignature"] = signature[:9] + ("0" if signature[9] != "0" else "1") + signature[10:]
    return changed


@pytest.mark.parametrize("what", ["token", "text", "prompt", "price", "state", "signature"])
def test_a_changed_receipt_does_not_verify(stored, tmp_path, verify, what):
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(lie(stored, what)))
    code, said = verify(file)
    assert (code, said["verdict"]) == (10, False)
    assert said["reason"]
