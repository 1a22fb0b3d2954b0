"""Writes ops.json: what the judge's rules give, by an implementation with unbounded integers.

    python ops.py > ops.json

The rules stand in ops_rules.py. A case is a function's signature, its ABI-encoded arguments, and the
ABI-encoded result; or, if the rule refuses, the signature of the error and the encoding of its fields.
"""

import json
import random

import ops_rules as rules
from ops_rules import I32, I64, be, block_shift, best_key, encode, heat, inverse_root, keccak, mass, split
from ops_rules import write_activation, write_fixed, write_weights, write_wide

BLOCK = "(bytes,bytes,uint256,int64)"
KEPT = "(uint32,int32,int64,uint32)"
EXTENT = "(uint32,uint32,uint32,uint32,uint32,bool,bool,bool,bool,bool)"
RULES = {
    "embed": (rules.embed, "bytes,uint256,uint8", "int32"),
    "add": (rules.add, "int32,int32", "int32"),
    "rope": (rules.rope, "int32,int32,int32,int32", "int32,int32"),
    "activate": (rules.activate, "int32,int32,uint8", "int32"),
    "quantise": (rules.quantise, "bytes", "uint16,bytes32"),
    "maximum": (rules.maximum, "bytes,uint256", "uint256"),
    "maximumSigned": (rules.maximum_signed, "bytes,uint256", "int64"),
    "total": (rules.total, "bytes,uint256", "uint256"),
    "largestMagnitude": (rules.largest_magnitude, "bytes,uint256", "uint256"),
    "sumOfSquares": (rules.sum_of_squares, "bytes,uint256,uint64", "uint256"),
    "normShift": (rules.norm_shift, "uint64", "uint256"),
    "inverseRoot": (rules.inverse_root, "uint64,uint32,uint32,uint64", "uint256,uint256"),
    "norm": (rules.norm, "int32,int32,uint64,uint64,uint64,uint8", "int32"),
    "chunk": (rules.chunk, "bytes,bytes", "int64"),
    "product": (rules.product, "bytes,int32", "int32"),
    "chunkOfRecords": (rules.chunk_of_records, "bytes,bytes", "int64"),
    "score": (rules.score, "bytes,uint8,uint32", "int32"),
    "largestScore": (rules.largest_score, "bytes,uint256", "int64"),
    "weightSum": (rules.weight_sum, "bytes,uint256,int64", "uint256"),
    "blockShift": (rules.block_shift, BLOCK + ",bytes", "uint256"),
    "blockSum": (rules.block_sum, BLOCK + ",uint64,bytes", "int64"),
    "attend": (rules.attend, "bytes,uint64,uint8,uint8", "int32"),
    "adjust": (rules.adjust, "int32,(uint32,int32,int32),(uint32,uint32),int32", "int32"),
    "bestKey": (rules.best_key, "bytes,uint256,uint32", "int64"),
    "keyToken": (rules.key_token, "int64", "uint32,int32"),
    "rank": (rules.rank, "bytes,uint256,int32", "uint64"),
    "isKth": (rules.is_kth, "uint64,uint32", "bool"),
    "heat": (rules.heat, "int32,uint32", "int64"),
    "mass": (rules.mass, "bytes,uint256," + KEPT, "uint64"),
    "isNucleus": (rules.is_nucleus, "uint64,uint64,uint64,uint32", "bool"),
    "mark": (rules.mark, "uint64,uint64", "uint64"),
    "draw": (rules.draw, "bytes,uint256,uint64", "uint32,uint64"),
    "drawToken": (rules.draw_token, "bytes,uint256," + KEPT + ",uint64", "uint32"),
    "link": (rules.link, "uint64,uint32", "bool"),
    "state": (rules.state, "bytes32,uint32,bytes", "bytes32"),
    "drawKey": (rules.draw_key, "bytes32,bytes32,bytes32,bytes32", "bytes32"),
    "uniform": (rules.uniform, "bytes32,uint32", "uint64"),
    "leaves": (rules.op_leaves, "uint32,uint32,uint32," + EXTENT, "uint256"),
    "treeLeaves": (rules.tree_leaves, "uint64", "uint256"),
    "treeWord": (rules.tree_word, "uint64,uint64,uint8", "uint256,uint256,uint256"),
    "finish": (rules.finish, "bytes,uint32,uint32[],bytes,uint32", "uint8"),
}


def case(name, rule, *values):
    function, inputs, outputs = RULES[rule]
    arguments = encode(split(inputs), values)
    entry = {"name": f"{rule}: {name}", "signature": f"{rule}({inputs})", "arguments": "0x" + arguments.hex()}
    entry["error"] = ""
    try:
        result = encode(split(outputs), function(*values))
    except rules.Refused as refused:
        entry["error"] = refused.signature
        kinds = split(refused.signature.split("(")[1][:-1])
        result = encode(kinds, refused.fields)
    entry["result"] = "0x" + result.hex()
    return entry


def cases():
    n = random.Random("assay ops")
    small = lambda: n.randint(-(1 << 20), 1 << 20)
    quants = lambda: [n.randint(-127, 127) for _ in range(128)]
    scales = lambda most: [n.randint(1, most) for _ in range(4)]
    vector = [(7919 * i % 20011 - 10005) * 37 for i in range(32)]
    weights = write_weights(25, scales(65535), quants())
    heaviest = write_weights(-128, [65535] * 4, [-127] * 128)
    x = write_activation(scales(32767), quants())
    largest = write_activation([32767] * 4, [127] * 128)
    opposite = write_activation([32767] * 4, [-127] * 128)

    for column in (0, 31, 32, 77, 127, 128):
        yield case(f"column {column}", "embed", weights, column, 16)
    yield case("every bit to the left", "embed", heaviest, 5, 16)
    yield case("every bit to the right", "embed", write_weights(127, [65535] * 4, [127] * 128), 5, 0)
    yield case("too many fraction bits", "embed", weights, 5, 17)
    for a, b in ((1, 2), (I32[1], 1), (I32[0], -1), (I32[0], I32[1])):
        yield case(f"{a} and {b}", "add", a, b)
    one = 1 << 30
    for angles in ((one, 0), (0, one), (-one, 0), (759250125, 759250125), (759250125, -759250125), (one + 1, 0), (0, -one - 1)):
        for a, b in ((small(), small()), (I32[0], I32[0]), (I32[1], I32[0])):
            yield case(f"({a}, {b}) by {angles}", "rope", a, b, *angles)
    for gate, up in ((70000, -90000), (0, 5), (-1, I32[1]), (I32[1], I32[1]), (I32[0], I32[1]), (I32[1], I32[0]), (-1000000, 1 << 24)):
        for fraction in (0, 12, 16):
            yield case(f"{gate} and {up} to {fraction}", "activate", gate, up, fraction)
    yield case("too many fraction bits", "activate", 1, 1, 17)
    for name, values in (
        ("the vector of the arithmetic", vector),
        ("nothing", [0] * 32),
        ("halves away from zero", [3, -3, 1, -1, 253] + [0] * 27),
        ("the largest scale", [I32[0], I32[1], 127 * 32767, 127 * 32767 + 1] + [0] * 28),
        ("ones", [1] * 31 + [-1]),
        ("one above 127 scales", [127 * 9 + 1, 127 * 9, -(127 * 9 + 1)] + [0] * 29),
    ):
        yield case(name, "quantise", write_fixed(values))
    yield case("a short leaf", "quantise", bytes(124))

    words = [n.getrandbits(64) for _ in range(32)]
    for rule in ("maximum", "maximumSigned", "total"):
        for count in (1, 31, 32, 0, 33):
            yield case(f"{count} of 32", rule, write_wide(words), count)
        yield case("all bits", rule, write_wide([(1 << 64) - 1] * 32), 32)
        yield case("a fixed-point leaf", rule, bytes(128), 3)
    for rule, more in (("largestMagnitude", ()), ("sumOfSquares", (0,)), ("sumOfSquares", (8,))):
        for count in (1, 32, 0, 33):
            yield case(f"{count} of 32 {more}", rule, write_fixed(vector), count, *more)
        yield case(f"all least {more}", rule, write_fixed([I32[0]] * 32), 32, *more)
    yield case("shift out of bounds", "sumOfSquares", write_fixed(vector), 5, 9)
    for value in (0, 1, (1 << 24) - 1, 1 << 24, 1 << 31, (1 << 64) - 1):
        yield case(str(value), "normShift", value)
    for sum_, width, eps, shift in (
        (0, 1, 0, 0),
        (0, 896, 42950, 0),
        (896 << 46, 896, 42950, 8),
        (sum(v * v for v in vector), 32, 42950, 0),
        ((1 << 63), 1 << 15, 42950, 8),
        ((1 << 50) - 2, 1, 0, 0),
        ((1 << 50) - 1, 1, 0, 0),
        (3, 0, 1, 0),
        (3, (1 << 15) + 1, 1, 0),
        (3, 1, 1, 9),
        (1 << 40, 7, (1 << 32) - 1, 3),
    ):
        yield case(f"{sum_} over {width}, eps {eps}, shift {shift}", "inverseRoot", sum_, width, eps, shift)
    statistics = inverse_root(sum(v * v for v in vector), 32, 42950, 0)
    for v in vector[:6]:
        yield case(f"{v}", "norm", v, 4096, 0, *statistics, 12)
    for edge in (
        (I32[0], I32[0], 0, 1 << 31, 11, 16),
        (I32[1], I32[0], 0, 1 << 31, 11, 16),
        (I32[0], 4096, 8, 1 << 30, 35, 0),
        (1, 1, 9, 1 << 30, 35, 0),
        (1, 1, 8, (1 << 30) - 1, 35, 0),
        (1, 1, 8, (1 << 31) + 1, 35, 0),
        (1, 1, 8, 1 << 30, 10, 0),
        (1, 1, 8, 1 << 30, 36, 0),
        (1, 1, 8, 1 << 30, 35, 17),
        (1, 1, 9, 1, 99, 99),
    ):
        yield case(f"edge {edge}", "norm", *edge)

    for name, w, a in (
        ("random", weights, x),
        ("the largest", heaviest, opposite),
        ("the least", heaviest, largest),
        ("neighbours that borrow", write_weights(0, [1] * 4, [-127, 127] * 64), write_activation([1] * 4, [127, -127] * 64)),
        ("nothing", write_weights(31, [1] * 4, [0] * 128), x),
        ("another kind", b"\x02" + weights[1:], x),
        ("a scale of nothing", weights[:4] + bytes(2) + weights[6:], x),
        ("-128 among the weights", weights[:100] + bytes(1) + weights[101:], x),
        ("a short leaf", weights[:-1], x),
        ("a long leaf", weights, x + bytes(1)),
        ("a node for a leaf", weights, bytes(64)),
        ("no scale", weights, bytes(2) + x[2:]),
        ("a scale too large", weights, x[:6] + b"\x80\x00" + x[8:]),
        ("-128 among the activations", weights, x[:135] + bytes(1)),
    ):
        yield case(name, "chunk", w, a)
    for name, a, b in (
        ("random", x, write_activation(scales(32767), quants())),
        ("the largest", opposite, opposite),
        ("the least", opposite, largest),
        ("a bad query", x[:-1], x),
        ("a bad key", x, bytes(136)),
    ):
        yield case(name, "chunkOfRecords", a, b)
    lists = {
        "nothing": [],
        "one": [-1124457782880],
        "32 chunks": [n.randint(-(1 << 52), 1 << 52) for _ in range(32)],
        "the least": [I64[0]] * 40,
        "the largest": [I64[1]] * 40,
    }
    for name, values in lists.items():
        partials = b"".join(be(v, 8) for v in values)
        for shift in (1, 30, 62):
            yield case(f"{name} by {shift}", "product", partials, shift)
        for fraction in (8, 12, 16):
            yield case(f"{name} from {fraction}", "score", partials, fraction, 193635251)
        for total_weight in (1, 4194304, (1 << 64) - 1):
            yield case(f"{name} over {total_weight}", "attend", partials, total_weight, 12, 16)
            yield case(f"{name} over {total_weight}, right", "attend", partials, total_weight, 16, 3)
    yield case("halves go up", "product", be(-3, 8), 1)
    for shift in (0, 63, -1):
        yield case(f"a shift by {shift}", "product", bytes(8), shift)
    yield case("half a number", "product", bytes(12), 3)
    yield case("too few fraction bits", "score", bytes(8), 7, 5)
    yield case("too large a factor", "score", bytes(8), 8, 1 << 29)
    yield case("the largest factor", "score", be(I64[1], 8), 16, (1 << 29) - 1)
    yield case("no weights", "attend", bytes(8), 0, 12, 12)
    yield case("too many fraction bits", "attend", bytes(8), 1, 17, 12)
    yield case("too many fraction bits out", "attend", bytes(8), 1, 12, 17)
    yield case("half a number", "attend", bytes(9), 1, 12, 12)
    for numerator in (-7, -6, -5, -1, 0, 1, 5, 6, 7):
        yield case(f"rounding {numerator}", "attend", be(numerator, 8), 4, 12, 12)

    scores = [n.randint(-900000, 900000) for _ in range(64)]
    top = max(scores)
    lower, upper = write_fixed(scores[:32]), write_fixed(scores[32:])
    for count in (1, 17, 32, 0, 33):
        yield case(f"{count} of 32", "largestScore", lower, count)
        yield case(f"{count} of 32", "weightSum", lower, count, top)
    yield case("all least", "largestScore", write_fixed([I32[0]] * 32), 32)
    yield case("far below", "weightSum", write_fixed([I32[0]] * 32), 32, I64[1])
    yield case("above the largest", "weightSum", lower, 32, max(scores[:32]) - 1)
    yield case("all equal", "weightSum", write_fixed([5] * 32), 32, 5)
    blocks = {
        "64": (lower, upper, 64, top),
        "33": (lower, upper, 33, top),
        "32": (lower, b"", 32, top),
        "1": (lower, b"", 1, scores[0]),
        "equal": (write_fixed([9] * 32), write_fixed([9] * 32), 64, 9),
        "vanishing": (lower, b"", 8, 1 << 40),
    }
    for name, b in blocks.items():
        count = b[2]
        for kind, scale in (("random", None), ("least", 1), ("largest", 32767)):
            given = [scale or n.randint(1, 32767) for _ in range(count)]
            yield case(f"{name}, {kind} scales", "blockShift", b, b"".join(be(s, 2) for s in given))
            shift = block_shift(b, b"".join(be(s, 2) for s in given))[0]
            for extreme in (None, -127, 127):
                values = b"".join(be(s, 2) + bytes([(n.randint(-127, 127) if extreme is None else extreme) + 128]) for s in given)
                yield case(f"{name}, {kind} scales, {extreme}", "blockSum", b, shift, values)
    wrong = {
        "no positions": (lower, upper, 0, top),
        "65 positions": (lower, upper, 65, top),
        "a second leaf too many": (lower, upper, 32, top),
        "a second leaf too few": (lower, b"", 33, top),
        "a short leaf": (lower[:-4], b"", 3, top),
        "a score above the largest": (lower, upper, 64, top - 1),
    }
    for name, b in wrong.items():
        yield case(name, "blockShift", b, bytes(2 * b[2]))
        yield case(name, "blockSum", b, 0, bytes(3 * b[2]))
    b = blocks["32"]
    yield case("a scale too few", "blockShift", b, b"\x00\x01" * 31)
    yield case("a scale of nothing", "blockShift", b, b"\x00\x01" * 31 + bytes(2))
    yield case("a scale too large", "blockShift", b, b"\x80\x00" * 32)
    yield case("a shift too far", "blockSum", b, 23, b"\x00\x01\x80" * 32)
    yield case("too small a shift", "blockSum", b, 0, b"\x7f\xff\xff" * 32)
    yield case("a value too few", "blockSum", b, 0, b"\x00\x01\x80" * 31)
    yield case("-128 among the values", "blockSum", b, 0, b"\x00\x01\x80" * 31 + b"\x00\x01\x00")

    neutral = (1 << 16, 0, 0)
    for logit in (0, 1, -1, 196608, -196608, I32[0], I32[1]):
        for penalties in (neutral, (85197, 32768, 65536), (1 << 12, I32[0], I32[0]), (1 << 20, I32[1], I32[1])):
            for hits in ((0, 0), (2, 0), (0, 1), (1, 3), (0, (1 << 32) - 1)):
                yield case(f"{logit} {penalties} {hits}", "adjust", logit, penalties, hits, n.choice((0, 0, 65536, I32[0], I32[1])))
    yield case("too weak a penalty", "adjust", 5, ((1 << 12) - 1, 0, 0), (1, 1), 0)
    yield case("too strong a penalty", "adjust", 5, ((1 << 20) + 1, 0, 0), (0, 0), 0)
    logits = [n.randint(-700000, 700000) for _ in range(32)]
    logits[20] = logits[7]
    leaf, best = write_fixed(logits), max(logits)
    for count in (1, 32, 0, 33):
        yield case(f"{count} of 32", "bestKey", leaf, count, 64)
        yield case(f"{count} of 32", "rank", leaf, count, logits[7])
        yield case(f"{count} of 32", "mass", leaf, count, (94548, best, I64[0], 0))
    for values in ([5] * 32, [I32[0]] * 32, [I32[1]] * 32):
        yield case(f"ties at {values[0]}", "bestKey", write_fixed(values), 32, (1 << 31) - 32)
        yield case(f"ties at {values[0]}", "rank", write_fixed(values), 32, values[0])
    yield case("a token id too large", "bestKey", leaf, 32, (1 << 31) - 31)
    for key in (0, -1, I64[0], I64[1], best_key(leaf, 32, 96)[0]):
        yield case(str(key), "keyToken", key)
    for above, from_, k in ((0, 1, 1), (0, 1, 2), (3, 5, 3), (3, 5, 4), (3, 5, 5), (3, 5, 6), (3, 3, 3)):
        yield case(f"{above} above, {from_} from, top {k}", "isKth", (above << 32) + from_, k)
    for logit, inv_t in ((65536, 94548), (-1, 1 << 15), (1, 1 << 15), (I32[0], (1 << 32) - 1), (I32[1], (1 << 32) - 1), (7, 0)):
        yield case(f"{logit} by {inv_t}", "heat", logit, inv_t)
    middle = heat(sorted(logits)[16], 94548)[0]
    for kept in (
        (94548, best, middle, 0),
        (94548, best, middle + 1, 0),
        (94548, best, I64[0], 1 << 24),
        (94548, best, I64[0], 1 << 30),
        (94548, best + 100000, I64[0], 0),
        ((1 << 32) - 1, best, I64[0], 0),
        (1, best, I64[0], 0),
        (94548, best, I64[1], 0),
        (94548, best, I64[0], (1 << 30) + 1),
        (94548, best - 1, I64[0], 0),
    ):
        yield case(f"kept {kept}", "mass", leaf, 32, kept)
        for mark_ in (0, 1 << 29, (1 << 30) + 5, 1 << 40):
            yield case(f"kept {kept}, mark {mark_}", "drawToken", leaf, 32, kept, mark_)
    whole = mass(leaf, 32, (94548, best, I64[0], 0))[0]
    yield case("the last of all", "drawToken", leaf, 32, (94548, best, I64[0], 0), whole - 1)
    yield case("one beyond all", "drawToken", leaf, 32, (94548, best, I64[0], 0), whole)
    for above, from_, all_, p in ((3, 4, 8, 1 << 15), (4, 5, 8, 1 << 15), (3, 3, 8, 1 << 15), (0, 1, 1, 1 << 16), (0, (1 << 64) - 1, (1 << 64) - 1, 1 << 16), (0, 0, 0, 1)):
        yield case(f"{above} {from_} of {all_} at {p}", "isNucleus", above, from_, all_, p)
    for u, s in ((0, 5), ((1 << 64) - 1, 5), (1 << 63, 7), ((1 << 64) - 1, (1 << 64) - 1)):
        yield case(f"{u} of {s}", "mark", u, s)
    sums = write_wide([5, 0, 7, 1 << 40])
    for mark_ in (0, 4, 5, 11, 12, (1 << 40) + 11, (1 << 40) + 12):
        yield case(f"mark {mark_}", "draw", sums, 4, mark_)
    yield case("sums beyond 64 bits", "draw", write_wide([(1 << 64) - 1] * 32), 32, (1 << 64) - 1)
    yield case("a count of none", "draw", sums, 0, 0)
    yield case("a short leaf", "draw", sums[:-8], 4, 0)
    for drawn, answered in ((5, 5), (5, 6), ((1 << 32) + 5, 5)):
        yield case(f"{drawn} for {answered}", "link", drawn, answered)
    for size in (136, 272, 136 * 7, 0, 135, 137):
        yield case(f"{size} bytes", "state", bytes(range(32)), 77, bytes(i % 251 for i in range(size)))
    yield case("some order", "drawKey", *(bytes([i]) * 32 for i in (1, 2, 3, 4)))
    for index in (0, 1, (1 << 32) - 1):
        yield case(f"token {index}", "uniform", bytes([7]) * 32, index)

    tokens = lambda *ids: b"".join(be(token, 4) for token in ids)
    stops = tokens(2, 2, 7, 8, 3, 8, 9, 7)
    for name, tail, length, eos, given in (
        ("goes on", tokens(1, 1, 1), 4, [2], stops),
        ("an end token", tokens(1, 1, 2), 4, [2, 5], stops),
        ("the other end token", tokens(5), 1, [2, 5], b""),
        ("a stop sequence", tokens(1, 7, 8), 3, [2], stops),
        ("the longer one", tokens(8, 9, 7), 9, [2], stops),
        ("an end token that ends a stop sequence", tokens(1, 7, 8), 9, [8], stops),
        ("shorter than a stop sequence", tokens(9, 7), 2, [2], stops),
        ("length", tokens(1), 10, [2], b""),
        ("beyond length", tokens(1), 11, [], b""),
        ("a stop sequence at length", tokens(8, 9, 7), 10, [], stops),
        ("a sequence of nothing", tokens(6), 3, [], tokens(1, 0)),
        ("no sequences, said at length", tokens(6), 3, [], tokens(0)),
        ("no token", b"", 0, [], b""),
        ("too short a tail", tokens(1, 1), 4, [2], stops),
        ("too long a tail", tokens(1, 1, 1, 1), 4, [2], stops),
        ("sequences cut short", tokens(1, 1, 1), 4, [2], stops[:-4]),
        ("a sequence that never ends", tokens(1), 4, [2], tokens(1, (1 << 32) - 1, 5)),
        ("more sequences than there are", tokens(1), 4, [2], tokens((1 << 32) - 1, 1, 5)),
        ("something after the sequences", tokens(1, 1, 1), 4, [2], stops + bytes(1)),
        ("half a number", tokens(1), 4, [2], bytes(3)),
    ):
        yield case(name, "finish", tail, length, eos, given, 10)

    for elements in (1, 32, 33, 1024, 1025, 32768, 131072, 151936):
        yield case(str(elements), "treeLeaves", elements)
        whole = rules.tree_leaves(elements)[0]
        for leaf in sorted({0, whole // 2, whole - 2, whole - 1, whole} - {-1}):
            for word in (0, 1, 31):
                yield case(f"{elements}, leaf {leaf}, word {word}", "treeWord", elements, leaf, word)
    llama = (14, 2, 64, 151936)
    for kind in range(36):
        yield case(f"step {kind}", "leaves", kind, 896, 4864, llama + (4097, True, True, False, True, True))
        yield case(f"step {kind}, silent", "leaves", kind, 33, 33, llama + (1, False, True, False, True, True))
    for flags in range(16):
        chosen = tuple(bool(flags >> bit & 1) for bit in range(4))
        yield case(f"sampler {chosen}", "leaves", 32, 3, 1024, (4, 2, 32, 1024, 65, True) + chosen)
    for dim in (32, 128, 160, 256):
        for kind in (8, 10, 11, 12, 13, 14, 15):
            yield case(f"heads of {dim}, step {kind}", "leaves", kind, 8 * dim, 3, (8, 4, dim, 99, 2049, True) + (False,) * 4)


def main():
    assert keccak(b"").hex().startswith("c5d2460186f7233c927e7db2dcc703c0")
    about = "rules of docs/protocol/trace.md, computed by an independent implementation with unbounded integers"
    lines = ",\n".join("    " + json.dumps(entry) for entry in cases())
    print(f'{{\n  "about": {json.dumps(about)},\n  "cases": [\n{lines}\n  ]\n}}')


main()
