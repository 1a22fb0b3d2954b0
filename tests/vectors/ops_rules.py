"""The judge's rules of docs/protocol/{arithmetic,trace}.md with unbounded integers, and ABI encoding.

An implementation of its own: it shares nothing with the Rust and Solidity twins. See ops.py.
"""

from math import isqrt

LOG2E = 1_549_082_005
I32 = (-(1 << 31), (1 << 31) - 1)
I64 = (-(1 << 63), (1 << 63) - 1)
QUANTITIES = (
    "Fraction Count Column Shift NormShift Mean Factor FactorShift Angle ScoreFactor Score BlockShift "
    "Weights Repetition Logit LeastWeight Mark Width Token Kind"
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


def finish(tail, length, eos, stops, tokens_max):
    bound("Count", length, 1, (1 << 32) - 1)
    sequences, read = [], 0

    def take(size):
        nonlocal read
        if read + size > len(stops):
            raise Refused("BadLength", len(stops), read + size)
        read += size
        return stops[read - size : read]

    if stops:
        for _ in range(int.from_bytes(take(4), "big")):
            sequences.append(take(4 * int.from_bytes(take(4), "big")))
        if read != len(stops):
            raise Refused("BadLength", len(stops), read)
    sized(tail, min(4 * length, max([4] + [len(stop) for stop in sequences])))
    if int.from_bytes(tail[-4:], "big") in eos:
        return [0]
    if any(tail.endswith(stop) for stop in sequences):
        return [1]
    return [2 if length >= tokens_max else 255]


# The layout.


def ceil(n, d):
    return -(-n // d)


def levels(elements):
    words = [ceil(elements, 32)]
    while words[-1] > 1:
        words.append(ceil(words[-1], 32))
    return words


def tree_leaves(elements):
    return [sum(ceil(words, 32) for words in levels(elements))]


def tree_word(elements, leaf, word):
    place = []
    for level, words in enumerate(levels(elements)):
        place += [(level, first) for first in range(ceil(words, 32))]
    if leaf >= len(place):
        raise Refused("NotInTree", leaf, len(place))
    level, first = place[leaf]
    below = ([elements] + levels(elements))[level]
    at = 32 * first + word
    start = place.index((level - 1, 0)) if level else 0
    return [level, start + at, max(0, min(32, below - 32 * at))]


def op_leaves(kind, outputs, terms, extent):
    heads, kv_heads, dim, vocab, attended, answers, adjusted, greedy, top_k, top_p = extent
    bound("Kind", kind, 0, 34)
    tree = lambda n: tree_leaves(n)[0]
    if kind >= 28 and not answers:
        return [0]
    if kind in (1, 19, 28):
        return [2 * tree(terms) + 1]
    if kind in (3, 16, 21, 25, 30):
        return [ceil(outputs, 128)]
    if kind == 32:
        sampled = 0 if greedy else tree(vocab) * (1 + top_k + 3 * top_p) + top_k + top_p
        return [(ceil(vocab, 32) if adjusted else 0) + tree(vocab) + sampled]
    special = {
        8: heads * ceil(dim, 128),
        10: kv_heads * ceil(dim, 128),
        11: kv_heads * ceil(dim, 128),
        12: heads * ceil(attended, 32),
        13: heads * 2 * tree(attended),
        14: heads * (dim // 32) * ceil(ceil(attended, 64), 32),
        33: 1,
        34: 1,
    }
    return [special.get(kind, ceil(outputs, 32))]


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
    if kind[0] == "(":
        return any(dynamic(part) for part in split(kind[1:-1]))
    return kind == "bytes" or kind.endswith("[]")


def encode_one(kind, value):
    if kind[0] == "(":
        return encode(split(kind[1:-1]), value)
    if kind.endswith("[]"):
        return be(len(value), 32) + b"".join(be(word, 32) for word in value)
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
