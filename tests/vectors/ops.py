"""Writes ops.json: what the judge's rules give, by an implementation with unbounded integers.

    python ops.py > ops.json

It shares nothing with the Rust and Solidity twins but docs/protocol/{arithmetic,trace}.md. A case is
a function's signature, its ABI-encoded arguments, and the ABI-encoded result, or the signature of
the error with which the rule refuses and the encoding of its fields.
"""

import json
import random
from math import isqrt

MASK = (1 << 256) - 1
LOG2E = 1_549_082_005
I32 = (-(1 << 31), (1 << 31) - 1)
I64 = (-(1 << 63), (1 << 63) - 1)
QUANTITIES = (
    "Fraction Count Column Shift NormShift Mean Factor FactorShift Angle ScoreFactor Score BlockShift "
    "Weights Repetition Logit LeastWeight Mark Width Token"
).split()


class Refused(Exception):
    """A rule that says nothing: the error and its fields."""

    def __init__(self, error, *fields):
        self.signature = f"{error}({','.join(['uint8' if error == 'OutOfBounds' else 'uint256'] + ['int256' if error == 'OutOfBounds' else 'uint256'] * (len(fields) - 1))})"
        self.fields = fields


def bound(what, found, least, most):
    if not least <= found <= most:
        raise Refused("OutOfBounds", QUANTITIES.index(what), found)
    return found


# The arithmetic.


def powers(halvings):
    one, base, table = 1 << 64, 1 << 63, []
    for _ in range(halvings):
        base = isqrt(base << 64)
    power = one
    for _ in range(256):
        table.append((power + (1 << 33)) >> 34)
        power = power * base >> 64
    return table


T1, T2 = powers(8), powers(16)


def sat32(v):
    return max(I32[0], min(I32[1], v))


def rsh(v, s):
    return (v + (1 << (s - 1))) >> s if s > 0 else v << -s


def exp2neg(u, fraction):
    whole = u >> 16
    return 0 if whole >= 40 else rsh(rsh(T1[u >> 8 & 255] * T2[u & 255], 30), whole + 30 - fraction)


def sigmoid(x):
    positive = (1 << 48) // ((1 << 24) + exp2neg(rsh(abs(x) * LOG2E, 30), 24))
    return positive if x >= 0 else (1 << 24) - positive


# Leaves.


def be(value, size):
    return (value & (1 << 8 * size) - 1).to_bytes(size, "big")


def signed(data):
    return int.from_bytes(data, "big", signed=True)


def write_fixed(values):
    return b"".join(be(v, 4) for v in list(values) + [0] * (32 - len(values)))


def write_wide(words):
    return b"".join(be(w, 8) for w in list(words) + [0] * (32 - len(words)))


def write_activation(scales, quants):
    return b"".join(be(s, 2) for s in scales) + bytes(q + 128 for q in quants)


def write_weights(exponent, scales, quants):
    body = bytearray(128)
    for k, q in enumerate(quants):
        lane, within = k % 32 // 4, k % 4
        body[k // 32 * 32 + (7 - lane) * 4 + within] = q + 128
    return be(1, 1) + be(exponent, 1) + b"".join(be(s, 2) for s in scales) + bytes(body)


def sized(data, expected):
    if len(data) != expected:
        raise Refused("BadLength", len(data), expected)
    return data


def read_fixed(data):
    sized(data, 128)
    return [signed(data[i : i + 4]) for i in range(0, 128, 4)]


def read_wide(data):
    sized(data, 256)
    return [int.from_bytes(data[i : i + 8], "big") for i in range(0, 256, 8)]


def read_groups(data, most, lane):
    scales = [int.from_bytes(data[i : i + 2], "big") for i in range(0, 8, 2)]
    for group, scale in enumerate(scales):
        if not 1 <= scale <= most:
            raise Refused("BadScale", group, scale)
    body = data[8:]
    for at, byte in enumerate(body):
        if byte == 0:
            raise Refused("BadQuant", at // 32)
    order = [k // 32 * 32 + lane(k % 32 // 4) * 4 + k % 4 for k in range(128)]
    return scales, [body[at] - 128 for at in order]


def read_activation(data):
    return read_groups(sized(data, 136), 32767, lambda lane: lane)


def read_weights(data):
    sized(data, 138)
    if data[0] != 1:
        raise Refused("BadKind", data[0])
    return (signed(data[1:2]),) + read_groups(data[2:], 65535, lambda lane: 7 - lane)


def read_list(data):
    if len(data) % 8:
        raise Refused("BadLength", len(data), len(data) // 8 * 8)
    return [signed(data[i : i + 8]) for i in range(0, len(data), 8)]


def first(values, count, most=32):
    bound("Count", count, 1, most)
    return values[:count]


# The rules.


def embed(weights, column, fraction):
    exponent, scales, quants = read_weights(weights)
    bound("Column", column, 0, 127)
    bound("Fraction", fraction, 0, 16)
    shift = max(-40, min(62, exponent - fraction))
    return [sat32(rsh(quants[column] * scales[column // 32], shift))]


def add(x, y):
    return [sat32(x + y)]


def rope(a, b, cos, sin):
    bound("Angle", cos, -(1 << 30), 1 << 30)
    bound("Angle", sin, -(1 << 30), 1 << 30)
    return [sat32(rsh(a * cos - b * sin, 30)), sat32(rsh(b * cos + a * sin, 30))]


def activate(gate, up, fraction):
    bound("Fraction", fraction, 0, 16)
    return [sat32(rsh(sat32(rsh(gate * sigmoid(gate), 24)) * up, 32 - fraction))]


def quantise(x):
    x = read_fixed(x)
    scale = max(1, min(32767, -(-max(map(abs, x)) // 127)))
    quants = [min(127, (2 * abs(v) + scale) // (2 * scale)) * (-1 if v < 0 else 1) for v in x]
    return [scale, bytes(q + 128 for q in quants)]


def maximum(words, count):
    return [max(first(read_wide(words), count))]


def maximum_signed(words, count):
    return [max(signed(be(w, 8)) for w in first(read_wide(words), count))]


def total(words, count):
    return [sum(first(read_wide(words), count))]


def largest_magnitude(x, count):
    return [max(map(abs, first(read_fixed(x), count)))]


def sum_of_squares(x, count, shift):
    x = first(read_fixed(x), count)
    bound("NormShift", shift, 0, 8)
    return [sum((v >> shift) ** 2 for v in x)]


def norm_shift(largest):
    return [max(0, largest.bit_length() - 24)]


def inverse_root(sum_, width, eps, shift):
    bound("Width", width, 1, 1 << 15)
    bound("NormShift", shift, 0, 8)
    mean = bound("Mean", sum_ // width + max(1, eps >> 2 * shift), 1, (1 << 50) - 1)
    half = (62 - mean.bit_length()) // 2
    return [(1 << 61) // isqrt(mean << 2 * half), 41 - half]


def norm(x, gain, shift, factor, right, fraction):
    bound("NormShift", shift, 0, 8)
    bound("Factor", factor, 1 << 30, 1 << 31)
    bound("FactorShift", right, 11, 35)
    bound("Fraction", fraction, 0, 16)
    return [sat32(rsh(rsh((x >> shift) * factor, right) * gain, 32 - fraction))]


def dot(a, b):
    (sa, qa), (sb, qb) = a, b
    return sum(qa[k] * qb[k] * sa[k // 32] * sb[k // 32] for k in range(128))


def chunk(weights, x):
    weights = read_weights(weights)[1:]
    return [dot(weights, read_activation(x))]


def product(partials, shift):
    partials = read_list(partials)
    bound("Shift", shift, 1, 62)
    return [sat32(rsh(sum(partials), shift))]


def chunk_of_records(query, key):
    query = read_activation(query)
    return [dot(query, read_activation(key))]


def score(partials, fraction, factor):
    partials = read_list(partials)
    bound("Fraction", fraction, 8, 16)
    bound("ScoreFactor", factor, 0, (1 << 29) - 1)
    return [sat32(rsh(sat32(rsh(sum(partials), 2 * fraction - 16)) * factor, 30))]


def largest_score(scores, count):
    return [max(first(read_fixed(scores), count))]


def weight(z, largest):
    bound("Score", z, -(1 << 255), largest)
    return exp2neg(largest - z, 22)


def weight_sum(scores, count, largest):
    return [sum(weight(z, largest) for z in first(read_fixed(scores), count))]


def block(b):
    lower, upper, count, largest = b
    bound("Count", count, 1, 64)
    scores = read_fixed(lower)
    if count > 32:
        scores += read_fixed(upper)
    else:
        sized(upper, 0)
    return [weight(z, largest) for z in scores[:count]]


def scale_at(data, at):
    scale = int.from_bytes(data[:2], "big")
    if not 1 <= scale <= 32767:
        raise Refused("BadScale", at, scale)
    return scale


def block_shift(b, scales):
    weights = block(b)
    sized(scales, 2 * len(weights))
    largest = max(w * scale_at(scales[2 * i :], i) for i, w in enumerate(weights))
    return [max(0, largest.bit_length() - 15)]


def block_sum(b, shift, values):
    weights = block(b)
    bound("BlockShift", shift, 0, 22)
    sized(values, 3 * len(weights))
    result = 0
    for i, w in enumerate(weights):
        scale = scale_at(values[3 * i :], i)
        if values[3 * i + 2] == 0:
            raise Refused("BadQuant", i)
        result += min(32767, rsh(w * scale, shift)) * (values[3 * i + 2] - 128)
    return [result << shift]


def attend(sums, weights, fraction_in, fraction_out):
    sums = read_list(sums)
    bound("Weights", weights, 1, 1 << 64)
    bound("Fraction", fraction_in, 0, 16)
    bound("Fraction", fraction_out, 0, 16)
    mean = sat32((2 * sum(sums) + weights) // (2 * weights))
    return [sat32(rsh(mean, fraction_in - fraction_out))]


def adjust(logit, penalties, hits, bias):
    rep, freq, pres = penalties
    bound("Repetition", rep, 1 << 12, 1 << 20)
    if any(hits):
        logit = sat32((logit << 16) // rep if logit > 0 else rsh(logit * rep, 16))
        logit = sat32(logit - freq * hits[1])
    if hits[1]:
        logit = sat32(logit - pres)
    return [sat32(logit + bias)]


def best_key(logits, count, first_token):
    logits = first(read_fixed(logits), count)
    bound("Token", first_token, 0, (1 << 31) - 32)
    return [max((l << 32) + (1 << 32) - 1 - first_token - i for i, l in enumerate(logits))]


def key_token(key):
    return [(1 << 32) - 1 - (key & (1 << 32) - 1), key >> 32]


def rank(logits, count, threshold):
    logits = first(read_fixed(logits), count)
    return [(sum(l > threshold for l in logits) << 32) + sum(l >= threshold for l in logits)]


def is_kth(ranks, top_k):
    return [ranks >> 32 < top_k <= ranks & (1 << 32) - 1]


def heat(logit, inv_t):
    return [rsh(logit * inv_t, 16)]


def kept_weights(logits, count, kept):
    inv_t, best, least_heat, least_weight = kept
    logits = first(read_fixed(logits), count)
    bound("LeastWeight", least_weight, 0, 1 << 30)
    weights = []
    for logit in logits:
        bound("Logit", logit, -(1 << 255), best)
        z = heat(logit, inv_t)[0]
        w = exp2neg(heat(best, inv_t)[0] - z, 30)
        weights.append(w if z >= least_heat and w >= least_weight else 0)
    return weights


def mass(logits, count, kept):
    return [sum(kept_weights(logits, count, kept))]


def is_nucleus(above, from_, all_, top_p):
    return [above << 16 < top_p * all_ <= from_ << 16]


def mark(uniform, mass_):
    return [uniform * mass_ >> 64]


def walk(words, mark_):
    before = 0
    for index, word in enumerate(words):
        if before + word > mark_:
            return index, mark_ - before
        before += word
    raise Refused("OutOfBounds", QUANTITIES.index("Mark"), mark_)


def draw(words, count, mark_):
    return list(walk(first(read_wide(words), count), mark_))


def draw_token(logits, count, kept, mark_):
    return [walk(kept_weights(logits, count, kept), mark_)[0]]


def link(drawn, answered):
    return [drawn == answered]


# Keccak-256, which Python lacks.


def keccak(data):
    def rotate(v, n):
        return (v << n | v >> 64 - n) & (1 << 64) - 1 if n else v

    lanes = [[0] * 5 for _ in range(5)]
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % 136)
    padded[-1] |= 0x80
    for start in range(0, len(padded), 136):
        for i in range(17):
            lanes[i % 5][i // 5] ^= int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
        lfsr = 1
        for _ in range(24):
            c = [l[0] ^ l[1] ^ l[2] ^ l[3] ^ l[4] for l in lanes]
            d = [c[x - 1] ^ rotate(c[(x + 1) % 5], 1) for x in range(5)]
            lanes = [[lane ^ d[x] for lane in lanes[x]] for x in range(5)]
            x, y, current = 1, 0, lanes[1][0]
            for t in range(24):
                x, y = y, (2 * x + 3 * y) % 5
                current, lanes[x][y] = lanes[x][y], rotate(current, (t + 1) * (t + 2) // 2 % 64)
            for y in range(5):
                row = [lanes[x][y] for x in range(5)]
                for x in range(5):
                    lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5])
            for j in range(7):
                lfsr = (lfsr << 1 ^ (lfsr >> 7) * 0x71) % 256
                if lfsr & 2:
                    lanes[0][0] ^= 1 << ((1 << j) - 1)
    return b"".join(lanes[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


def state(before, token, hidden):
    if not hidden or len(hidden) % 136:
        raise Refused("BadLength", len(hidden), max(1, -(-len(hidden) // 136)) * 136)
    return [keccak(before + be(token, 4) + keccak(hidden))]


def draw_key(seed, model, prompt, sampler):
    return [keccak(b"EXACT1/rng" + seed + model + prompt + sampler)]


def uniform(key, index):
    return [int.from_bytes(keccak(key + be(index, 4) + be(0, 4))[:8], "big")]


# ABI encoding: a bytes value is dynamic where the type says `bytes`, one word where it says `bytes32`.


def split(types):
    parts, depth, start = [], 0, 0
    for i, c in enumerate(types + ","):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(types[start:i])
            start = i + 1
    return [part for part in parts if part]


def dynamic(kind):
    return any(part == "bytes" for part in split(kind[1:-1])) if kind[0] == "(" else kind == "bytes"


def encode_one(kind, value):
    if kind[0] == "(":
        return encode(split(kind[1:-1]), value)
    if kind == "bytes":
        return be(len(value), 32) + value + bytes(-len(value) % 32)
    return value if kind == "bytes32" else be(int(value), 32)


def encode(kinds, values):
    encoded = [encode_one(kind, value) for kind, value in zip(kinds, values, strict=True)]
    offset = sum(32 if dynamic(kind) else len(e) for kind, e in zip(kinds, encoded))
    head, tail = b"", b""
    for kind, e in zip(kinds, encoded):
        if dynamic(kind):
            head += be(offset + len(tail), 32)
            tail += e
        else:
            head += e
    return head + tail


BLOCK = "(bytes,bytes,uint256,int64)"
KEPT = "(uint32,int32,int64,uint32)"
RULES = {
    "embed": (embed, "bytes,uint256,uint8", "int32"),
    "add": (add, "int32,int32", "int32"),
    "rope": (rope, "int32,int32,int32,int32", "int32,int32"),
    "activate": (activate, "int32,int32,uint8", "int32"),
    "quantise": (quantise, "bytes", "uint16,bytes32"),
    "maximum": (maximum, "bytes,uint256", "uint256"),
    "maximumSigned": (maximum_signed, "bytes,uint256", "int64"),
    "total": (total, "bytes,uint256", "uint256"),
    "largestMagnitude": (largest_magnitude, "bytes,uint256", "uint256"),
    "sumOfSquares": (sum_of_squares, "bytes,uint256,uint64", "uint256"),
    "normShift": (norm_shift, "uint64", "uint256"),
    "inverseRoot": (inverse_root, "uint64,uint32,uint32,uint64", "uint256,uint256"),
    "norm": (norm, "int32,int32,uint64,uint64,uint64,uint8", "int32"),
    "chunk": (chunk, "bytes,bytes", "int64"),
    "product": (product, "bytes,int32", "int32"),
    "chunkOfRecords": (chunk_of_records, "bytes,bytes", "int64"),
    "score": (score, "bytes,uint8,uint32", "int32"),
    "largestScore": (largest_score, "bytes,uint256", "int64"),
    "weightSum": (weight_sum, "bytes,uint256,int64", "uint256"),
    "blockShift": (block_shift, BLOCK + ",bytes", "uint256"),
    "blockSum": (block_sum, BLOCK + ",uint64,bytes", "int64"),
    "attend": (attend, "bytes,uint64,uint8,uint8", "int32"),
    "adjust": (adjust, "int32,(uint32,int32,int32),(uint32,uint32),int32", "int32"),
    "bestKey": (best_key, "bytes,uint256,uint32", "int64"),
    "keyToken": (key_token, "int64", "uint32,int32"),
    "rank": (rank, "bytes,uint256,int32", "uint64"),
    "isKth": (is_kth, "uint64,uint32", "bool"),
    "heat": (heat, "int32,uint32", "int64"),
    "mass": (mass, "bytes,uint256," + KEPT, "uint64"),
    "isNucleus": (is_nucleus, "uint64,uint64,uint64,uint32", "bool"),
    "mark": (mark, "uint64,uint64", "uint64"),
    "draw": (draw, "bytes,uint256,uint64", "uint32,uint64"),
    "drawToken": (draw_token, "bytes,uint256," + KEPT + ",uint64", "uint32"),
    "link": (link, "uint64,uint32", "bool"),
    "state": (state, "bytes32,uint32,bytes", "bytes32"),
    "drawKey": (draw_key, "bytes32,bytes32,bytes32,bytes32", "bytes32"),
    "uniform": (uniform, "bytes32,uint32", "uint64"),
}


def case(name, rule, *values):
    function, inputs, outputs = RULES[rule]
    arguments = encode(split(inputs), values)
    entry = {"name": f"{rule}: {name}", "signature": f"{rule}({inputs})", "arguments": "0x" + arguments.hex()}
    entry["error"] = ""
    try:
        result = encode(split(outputs), function(*values))
    except Refused as refused:
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


def main():
    assert keccak(b"").hex().startswith("c5d2460186f7233c927e7db2dcc703c0")
    about = "rules of docs/protocol/trace.md, computed by an independent implementation with unbounded integers"
    lines = ",\n".join("    " + json.dumps(entry) for entry in cases())
    print(f'{{\n  "about": {json.dumps(about)},\n  "cases": [\n{lines}\n  ]\n}}')


main()
