"""Proofs of Ethereum's state, checked by code that shares nothing with ours but the format.

A trie's node is the RLP of 17 branches and a value, or of a path and what stands at its end. Nodes are
named by their hash, or stand inside their parent when they are shorter than one.
"""

import rlp
from eth_utils import keccak


def prove(root, key, proof):
    """The value that stands under `key` in the trie with this root, or None if there is none.

    Fails with AssertionError when `proof` shows neither.
    """
    path, node = nibbles(keccak(key)), root
    remaining = [bytes(each) for each in proof]
    while True:
        fields = node
        if isinstance(node, bytes):
            assert remaining, "the proof ends before the path does"
            encoded = remaining.pop(0)
            assert keccak(encoded) == node, "a node is not the one that its parent names"
            fields = rlp.decode(encoded)
        node, path = step(fields, path)
        if node is None or not path:
            assert not remaining, "the proof goes on after the path has ended"
            return node


def step(fields, path):
    """Where a path leads from a node, and what is left of it; None if it leads nowhere."""
    if len(fields) == 17:
        # Keys are hashes, of one length: no path ends in a branch.
        child = fields[path[0]]
        return (None, path) if child == b"" else (child, path[1:])
    shared, end = fields
    flag, *rest = nibbles(shared)
    # An odd path begins in the flag's own byte; an even one after it.
    rest = rest if flag & 1 else rest[1:]
    if path[: len(rest)] != rest:
        return None, path
    left = path[len(rest) :]
    assert bool(flag & 2) == (not left), "a leaf ends a path, and nothing else does"
    return end, left


def nibbles(text):
    return [half for byte in text for half in (byte >> 4, byte & 15)]


# What a header's hash is made of, in this order; newer fields are missing from older blocks.
HEADER = [
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom",
    "difficulty", "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce",
    "baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot",
    "requestsHash",
]  # fmt: skip


def header_hash(block):
    """The hash of a block, from its fields as JSON-RPC gives them."""
    numbers = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}
    numbers |= {"blobGasUsed", "excessBlobGas"}
    given = [name for name in HEADER if block.get(name) is not None]
    assert given == HEADER[: len(given)], "a header has a field without the ones before it"

    def plain(name):
        text = block[name]
        return int(text, 16) if name in numbers else bytes.fromhex(text[2:])

    return keccak(rlp.encode([plain(name) for name in given]))
