"""What other people's libraries make of texts with Unigram vocabularies.

Usage: unigram.py vectors > unigram.json
       unigram.py compare VOCABULARY.gguf FOLDER

The first trains a small vocabulary with SentencePiece and writes it as a tokenizer.json, with the ids that
SentencePiece and the library `tokenizers` give for texts, in every way to spell spaces (crates/text/src/
unigram.rs). The second takes the vocabulary of a GGUF file and writes it into FOLDER as SentencePiece and as
`tokenizers` read it, with cases beside each in the form of llama.cpp's: NAME.inp, texts, and NAME.out, ids.

SentencePiece adds scores in binary32, all others in binary64.
"""

import base64
import json
import os
import random
import struct
import sys
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BETWEEN = "\n__ggml_vocab_test__\n"
SPACE = "▁"

# ---- the files of SentencePiece: messages of protocol buffers ----------------------------------------


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    """One field: bytes and text with their length, floats in four bytes, all else as a number."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(int(value))


def fields(message):
    """The fields of a message: numbers and values, floats and lengths as bytes."""
    at = 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = number() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, message[at : at + length]
        at += length


def sentence_piece(vocabulary, joined, first):
    """SentencePiece with this vocabulary and these rules for spaces."""
    pieces = b""
    for spelling, score, kind in vocabulary["pieces"]:
        pieces += field(1, field(1, spelling) + field(2, float(score)) + field(3, kind))
    has_bytes = any(kind == BYTE for _, _, kind in vocabulary["pieces"])
    trainer = field(2, field(3, 1) + field(35, has_bytes))
    rules = field(2, vocabulary["charsmap"]) + field(3, first) + field(4, joined) + field(5, True)
    return sentencepiece.SentencePieceProcessor(model_proto=pieces + trainer + field(3, rules))


# ---- the library `tokenizers` ------------------------------------------------------------------------


def library(vocabulary, way):
    """The library with this vocabulary, spaces spelled in one of its ways."""
    pieces = vocabulary["pieces"]
    unknown = next(id for id, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN)
    has_bytes = any(kind == BYTE for _, _, kind in pieces)
    model = models.Unigram([(spelling, score) for spelling, score, _ in pieces], unknown, has_bytes)
    tokenizer = Tokenizer(model)
    steps = [normalizers.Precompiled(vocabulary["charsmap"])] if vocabulary["charsmap"] else []
    if way == "single":
        steps += [normalizers.Replace(Regex(" {2,}"), " ")]
    if way == "trimmed":
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    tokenizer.normalizer = steps[0] if len(steps) == 1 else normalizers.Sequence(steps)
    spell = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    if way == "words":
        spell = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spell])
    tokenizer.pre_tokenizer = spell
    tokenizer.add_special_tokens([spelling for spelling, _, kind in pieces if kind == CONTROL])
    return tokenizer


WAYS = ["joined", "joined_bare", "kept", "kept_bare", "words", "single", "trimmed", "every"]


def encoder(vocabulary, way):
    """From a text to its ids, without tokens around it."""
    if way in WAYS[:4]:
        processor = sentence_piece(vocabulary, way.startswith("joined"), not way.endswith("bare"))
        return processor.encode
    tokenizer = library(vocabulary, way)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


# ---- texts -------------------------------------------------------------------------------------------

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "Die Würde des Menschen ist unantastbar. Sie zu achten ist Verpflichtung.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "for (int i = 0; i != 10; ++i) { total += values[i] * 3.14159e-10; }",
]
# Letters on which ways part: blanks of all kinds, what is composed and taken apart, what joins.
ODD = [
    " ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u200b", "\u200d",
    "\ufeff", "\u00ad", SPACE, "e\u0301", "e\u0301\u0323", "\u0301", "ﬁ", "ﬁ\u0301", "Å", "ａ", "①", "㌀", "½", "ﷺ",
    "\u1112\u1161\u11ab", "\u0e33", "\u0a71", "👩\u200d👧", "👍🏽", "🇨🇭", "\U0001d400", "\U00020000", "\U000e0041",
    "\x01", "\x7f", "\x85", "ß", "İ", "ſ", "¨", "。", "！", "…", "''", "0", "12", "a", "A", "b", ".", "-",
]
RANGES = [
    (0x20, 0x3B), (0x3F, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80),
    (0x1100, 0x1200), (0x1E00, 0x2400), (0x2460, 0x2800), (0x3000, 0x3400), (0x4E00, 0x5000), (0xAC00, 0xAD00),
    (0xF900, 0xFB07), (0xFE20, 0xFFF0), (0x1D400, 0x1D500), (0x1F300, 0x1F700),
]


def letter(rng):
    if rng.random() < 0.6:
        return rng.choice(ODD)
    low, high = rng.choice(RANGES)
    return chr(rng.randrange(low, high))


def text(rng):
    """A stretch of a sentence with odd letters strewn in, or odd letters alone."""
    if rng.random() < 0.3:
        return "".join(letter(rng) for _ in range(rng.randrange(12)))
    sentence = rng.choice(SENTENCES)
    start = rng.randrange(len(sentence))
    letters = list(sentence[start : start + rng.randrange(1, 40)])
    for _ in range(rng.randrange(5)):
        letters.insert(rng.randrange(len(letters) + 1), letter(rng))
    return "".join(letters)


# ---- the small vocabulary ----------------------------------------------------------------------------

# What characters become, in hexadecimal, as SentencePiece reads such rules.
RULES = """
9	20
a	20
d	20
a0	20
3000	20
200b	20
1	
ad	
65 301	e9
fb01	66 69
c5	e5
ff41	61
bd	31 2044 32
2026	2e 2e 2e
a8	20 308
1112 1161 11ab	d55c
"""


def trained():
    """Pieces with scores and kinds, and the map of characters, of a small vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        lines, rules = Path(folder, "lines"), Path(folder, "rules.tsv")
        # Letters of all others stay unknown.
        lines.write_text("\n".join(SENTENCES[:5] * 3) + "\n", encoding="utf-8")
        rules.write_text(RULES.strip("\n") + "\n", encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(lines), model_prefix=folder + "/small", vocab_size=280, model_type="unigram",
            character_coverage=0.98, normalization_rule_tsv=str(rules), hard_vocab_limit=False,
            num_threads=1, minloglevel=2, pad_id=3, seed_sentencepiece_size=2000,
        )
        model = Path(folder, "small.model").read_bytes()
    pieces, charsmap = [], b""
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces.append((piece[1].decode(), score, piece.get(3, NORMAL)))
        if number == 3:
            charsmap = dict(fields(value)).get(2, b"")
    return {"pieces": pieces, "charsmap": charsmap}


def with_bytes(vocabulary):
    """The same with a token for each byte behind all others."""
    more = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    # The library counts them when it looks for the lowest score, so theirs must not be lower.
    return {**vocabulary, "pieces": vocabulary["pieces"] + more}


def vectors():
    small = trained()
    file = json.loads(library(small, "words").to_str())
    cases = []
    for spelled_in_bytes in [False, True]:
        vocabulary = with_bytes(small) if spelled_in_bytes else small
        for way in WAYS:
            encode = encoder(vocabulary, way)
            rng = random.Random(way)
            texts = ["", " ", "  a  b ", "a\r\nb", "xyz"] + [text(rng) for _ in range(35)]
            for said in texts:
                cases.append({"bytes": spelled_in_bytes, "spaces": way, "text": said, "ids": encode(said)})
    libraries = {"sentencepiece": sentencepiece.__version__, "tokenizers": tokenizers.__version__}
    print(json.dumps({"libraries": libraries, "tokenizer": file}, ensure_ascii=False)[:-1] + ', "cases": [')
    print(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases))
    print("]}")


# ---- a vocabulary of a GGUF file ---------------------------------------------------------------------


def metadata(path):
    """The keys and values of a GGUF file."""
    data, at = Path(path).read_bytes(), 0
    formats = ["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", None, None, "<Q", "<q", "<d"]

    def value(kind):
        nonlocal at
        if kind == 8:
            length = value(10)
            at += length
            return data[at - length : at].decode()
        if kind == 9:
            of, count = value(4), value(10)
            return [value(of) for _ in range(count)]
        (number,) = struct.unpack_from(formats[kind], data, at)
        at += struct.calcsize(formats[kind])
        return number

    assert data[:4] == b"GGUF"
    at = 4
    _version, _tensors, keys = value(4), value(10), value(10)
    found = {}
    for _ in range(keys):
        key = value(8)
        found[key] = value(value(4))
    return found


def compare(path, folder):
    said = metadata(path)
    of = lambda name, default=None: said.get("tokenizer.ggml." + name, default)
    kinds = list(of("token_type"))
    kinds[of("unknown_token_id")] = UNKNOWN
    charsmap = bytes(byte & 255 for byte in of("precompiled_charsmap", []))
    vocabulary = {"pieces": list(zip(of("tokens"), of("scores"), kinds)), "charsmap": charsmap}
    joined, first = of("remove_extra_whitespaces", False), of("add_space_prefix", False)
    way = ("joined" if joined else "kept") + ("" if first else "_bare")
    rng = random.Random(7)
    texts = SENTENCES + ODD + [text(rng) for _ in range(3000)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own, since the cases are of this script.
    file = folder / (Path(path).stem + "-sentencepiece.gguf")
    if not file.exists():
        os.symlink(path, file)
    write(file, texts, encoder(vocabulary, way))
    for way in ["words", "trimmed"]:
        file = folder / f"{Path(path).stem}-tokenizers-{way}.json"
        tokenizer = library(vocabulary, way)
        tokenizer.save(str(file))
        write(file, texts, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)


def write(file, texts, encode):
    """Cases beside a file."""
    Path(f"{file}.inp").write_bytes("".join(text + BETWEEN for text in texts).encode())
    ids = (" ".join(map(str, encode(text))) for text in texts)
    Path(f"{file}.out").write_text("".join(line + "\n" for line in ids))


if __name__ == "__main__":
    if sys.argv[1] == "vectors":
        vectors()
    else:
        compare(sys.argv[2], sys.argv[3])
