"""Writes receipts.json: trees over receipt digests with their proofs, by the plain definition.

    pip install eth-utils 'eth-hash[pycryptodome]' && python3 tests/vectors/receipts.py
"""

import json
import pathlib

from eth_utils import keccak

HERE = pathlib.Path(__file__).parent


def levels(digests):
    """All levels of the tree: tagged leaves, padded with zeros to a power of two, up to the root."""
    level = [keccak(b"\0" + digest) for digest in digests]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    tree = [level]
    while len(level) > 1:
        level = [keccak(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        tree.append(level)
    return tree


def proof(tree, index):
    """The siblings of a leaf's path, from the leaf up."""
    return ["0x" + level[(index >> height) ^ 1].hex() for height, level in enumerate(tree[:-1])]


def case(count):
    """A tree of `count` receipts whose digests are the hashes of their numbers."""
    digests = [keccak(bytes([number])) for number in range(count)]
    tree = levels(digests)
    return {
        "count": count,
        "digests": ["0x" + digest.hex() for digest in digests],
        "root": "0x" + tree[-1][0].hex(),
        "proofs": [proof(tree, index) for index in range(count)],
    }


if __name__ == "__main__":
    document = {"cases": [case(count) for count in (1, 2, 3, 5, 8)]}
    (HERE / "receipts.json").write_text(json.dumps(document, indent=1) + "\n")
