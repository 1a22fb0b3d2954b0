"""Writes state tests whose outcomes come from Ethereum's executable specification.

    pip install ethereum-execution==2.20.0
    python fill_statetests.py SEED COUNT > ../../../../tests/vectors/statetests/random.json

Programs are random but not blind: they push what their operations need, call each other and
precompiles, create, destroy, log and store. Every test runs under every fork that knows its kind of
transaction. The outcomes are the specification's, not ours.
"""

import io
import json
import logging
import random
import sys

from ethereum_spec_tools.evm_tools.statetest import TestCase, run_test_case
from ethereum_spec_tools.evm_tools.t8n import ForkCache

FORKS = (
    "Frontier Homestead EIP150 EIP158 Byzantium ConstantinopleFix Istanbul Berlin London "
    "Paris Shanghai Cancun Prague Osaka"
).split()
KEY = "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"
SENDER = "0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b"
COINBASE = "0x2adc25665018aa1fe0e6bc666dac8fc2697ff9ba"
CONTRACTS = [f"0x{i:040x}" for i in (0x1000, 0x1001, 0x1002)]
EMPTY = f"0x{0x2000:040x}"  # in the state, yet empty, where a fork permits it
ABSENT = f"0x{0x3000:040x}"
PRECOMPILES = [f"0x{i:040x}" for i in (*range(1, 18), 0x100)]

# Operations by what they take from the stack, with the number of words they leave.
ARITHMETIC = {2: bytes([*range(1, 8), *range(10, 12), *range(0x10, 0x15), *range(0x16, 0x1E)]), 3: b"\x08\x09", 1: b"\x15\x19\x1e"}
FACTS = b"\x30\x32\x33\x34\x36\x38\x3a\x3d\x41\x42\x43\x44\x45\x46\x47\x48\x4a\x58\x59\x5a"


def push(value):
    raw = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return bytes([0x5F + len(raw)]) + raw


def word(rng):
    kind = rng.random()
    if kind < 0.6:
        return rng.randrange(0, 40)
    if kind < 0.8:
        return rng.getrandbits(rng.choice([8, 16, 64, 160]))
    return rng.choice([0, 1, 2**255, 2**256 - 1, rng.getrandbits(256)])


def address(rng):
    return int(rng.choice(CONTRACTS * 3 + PRECOMPILES + [EMPTY, ABSENT, SENDER, COINBASE]), 16)


def call(rng):
    operation = rng.choice([0xF1, 0xF1, 0xF2, 0xF4, 0xFA])
    value = push(rng.choice([0, 0, 1, 1000])) if operation in (0xF1, 0xF2) else b""
    gas = rng.choice([0, 700, 5000, 40_000, 200_000])
    window = [push(rng.randrange(0, 160)) for _ in range(4)]
    return b"".join(window) + value + push(address(rng)) + push(gas) + bytes([operation]) + b"\x50"


def create(rng, depth):
    body = program(rng, rng.randrange(1, 6), depth + 1)[:28]
    kept = push(rng.randrange(0, 32)) + push(0) + b"\xf3"
    init = (body + kept)[:32] if rng.random() < 0.5 else kept
    code = push(int.from_bytes(init.ljust(32, b"\0"), "big")) + push(0) + b"\x52"
    if rng.random() < 0.5:
        code += push(rng.randrange(3)) + push(len(init)) + push(0) + push(rng.choice([0, 0, 1])) + b"\xf5"
    else:
        code += push(len(init)) + push(0) + push(rng.choice([0, 0, 1])) + b"\xf0"
    if rng.random() < 0.4:
        return code + b"".join(push(0) for _ in range(5)) + b"\x85" + push(50_000) + b"\xf1\x50\x50"
    return code + b"\x50"


def step(rng, depth):
    kind = rng.random()
    slot = push(rng.randrange(0, 5))
    if kind < 0.22:
        return push(rng.choice([0, 0, 1, 2, word(rng)])) + slot + b"\x55"
    if kind < 0.30:
        return slot + b"\x54" + push(rng.randrange(0, 5)) + b"\x55"
    if kind < 0.42:
        takes = rng.choice([1, 2, 2, 2, 3])
        operation = rng.choice(ARITHMETIC[takes])
        return b"".join(push(word(rng)) for _ in range(takes)) + bytes([operation]) + slot + b"\x55"
    if kind < 0.48:
        return push(word(rng)) + push(rng.randrange(0, 300)) + rng.choice([b"\x52", b"\x53"])
    if kind < 0.54:
        return push(rng.randrange(0, 70)) + push(rng.randrange(0, 200)) + b"\x20" + slot + b"\x55"
    if kind < 0.60:
        topics = rng.randrange(0, 5)
        return b"".join(push(word(rng)) for _ in range(topics)) + push(rng.randrange(64)) + push(rng.randrange(64)) + bytes([0xA0 + topics])
    if kind < 0.66:
        return bytes([rng.choice(FACTS)]) + slot + b"\x55"
    if kind < 0.71:
        return push(address(rng)) + rng.choice([b"\x31", b"\x3b", b"\x3f"]) + slot + b"\x55"
    if kind < 0.74:
        return push(rng.randrange(0, 12)) + rng.choice([b"\x40", b"\x35", b"\x49"]) + slot + b"\x55"
    if kind < 0.77:
        return push(word(rng)) + slot + b"\x5d" + slot + b"\x5c" + slot + b"\x55"
    if kind < 0.79:
        return push(rng.randrange(70)) + push(rng.randrange(70)) + push(rng.randrange(70)) + rng.choice([b"\x5e", b"\x37", b"\x39", b"\x3e"])
    if kind < 0.93:
        return call(rng)
    if kind < 0.98 and depth == 0:
        return create(rng, depth)
    return rng.choice([b"\x5b", b"\x5f\x50", bytes([rng.randrange(256)])])


def program(rng, steps, depth=0):
    code = b"".join(step(rng, depth) for _ in range(steps))
    end = rng.random()
    if end < 0.10:
        return code + push(address(rng)) + b"\xff"
    if end < 0.18:
        return code + push(rng.randrange(40)) + push(0) + b"\xfd"
    if end < 0.40:
        return code + push(rng.randrange(40)) + push(0) + b"\xf3"
    return code + b"\0"


def account(balance=0, nonce=0, code=b"", storage=None):
    slots = {f"0x{k:02x}": f"0x{v:02x}" for k, v in (storage or {}).items()}
    return {"balance": hex(balance), "nonce": hex(nonce), "code": "0x" + code.hex(), "storage": slots}


def unit(rng):
    kind = rng.choice([0, 0, 0, 1, 2, 2])
    pre = {SENDER: account(10**18, rng.choice([0, 3]))}
    ancient = kind == 0 and rng.random() < 0.3
    if ancient:
        pre[EMPTY] = account()  # impossible since EIP-161
    for contract in CONTRACTS:
        storage = {k: rng.randrange(1, 4) for k in range(rng.randrange(0, 4))}
        pre[contract] = account(rng.choice([0, 10**6]), rng.choice([0, 1]), program(rng, rng.randrange(4, 18)), storage)
    if rng.random() < 0.5:
        pre[COINBASE] = account(1, 0)
    creates = rng.random() < 0.15
    data = [program(rng, 6) if creates else rng.randbytes(rng.choice([0, 4, 36]))]
    if rng.random() < 0.4:
        data.append(b"\0" * 40 + rng.randbytes(40))
    transaction = {
        "data": ["0x" + d.hex() for d in data],
        "gasLimit": [hex(g) for g in rng.sample([rng.choice([21_000, 60_000]), 200_000, 1_500_000, 4_000_000], 2)],
        "nonce": pre[SENDER]["nonce"] if rng.random() < 0.95 else "0x9",
        "secretKey": KEY,
        "sender": SENDER,
        "to": "" if creates else rng.choice(CONTRACTS + CONTRACTS + [EMPTY, ABSENT, PRECOMPILES[1]]),
        "value": [hex(v) for v in rng.sample([0, 1, 10**5, rng.choice([7, 10**18])], 2)],
    }
    if kind == 2:
        transaction |= {"maxFeePerGas": "0x20", "maxPriorityFeePerGas": rng.choice(["0x0", "0x5", "0x5", "0x5", "0x30"])}
    else:
        transaction["gasPrice"] = rng.choice(["0xa", "0x10", "0x10", "0x10", "0x9"])
    if kind >= 1:
        keys = [f"0x{k:064x}" for k in range(3)]
        lists = [[{"address": rng.choice(CONTRACTS), "storageKeys": rng.sample(keys, 2)}] for _ in data]
        transaction["accessLists"] = lists
    env = {
        "currentCoinbase": COINBASE,
        "currentDifficulty": "0x20000",
        "currentRandom": "0x" + rng.randbytes(32).hex(),
        "currentGasLimit": "0x989680",
        "currentNumber": "0x1",
        "currentTimestamp": "0x3e8",
        "currentBaseFee": "0xa",
        "currentExcessBlobGas": "0x0",
        "previousHash": PARENT,
    }
    since = FORKS.index(["Frontier", "Berlin", "London"][kind])
    forks = FORKS[since : FORKS.index("EIP158")] if ancient else FORKS[since:]
    return {"env": env, "pre": pre, "transaction": transaction}, forks


# By convention the hash of block 0 in a state test: keccak256("0").
PARENT = "0x044852b2a670ade5407e78fb2863c51de9fcb96542a07186fe3aeda6bb8a116d"


def outcome(name, test, fork, indexes, cache):
    env = dict(test["env"])
    case = TestCase(path="", key=name, index=0, fork_name=fork, post={"indexes": indexes}, pre=test["pre"], env=env, transaction=test["transaction"])
    result = run_test_case(case, cache, output_basedir=io.StringIO())
    post = {"indexes": indexes, "hash": "0x" + result.state_root.hex(), "logs": "0x" + result.logs_hash.hex()}
    if result.rejected:
        post["expectException"] = str(next(iter(result.rejected.values())))
    return post


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.CRITICAL)
    tests = {}
    with ForkCache() as cache:
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            test, forks = unit(rng)
            parts = test["transaction"]
            variants = [{"data": d, "gas": g, "value": v} for d in range(len(parts["data"])) for g in range(2) for v in range(2)]
            test["post"] = {fork: [outcome(f"random_{seed}_{number}", test, fork, rng.choice(variants), cache) for _ in range(2)] for fork in forks}
            tests[f"random_{seed}_{number}"] = test
            print(number, file=sys.stderr)
    json.dump(tests, sys.stdout, separators=(",", ":"))
    print()


main()
