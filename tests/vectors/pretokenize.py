"""Adds to pretokenize.json how families that cut in several steps cut its texts, by the package regex.

Usage: pretokenize.py (in this folder). Each step cuts every piece that the one before left.
"""

import json
from pathlib import Path

import regex

FILE = Path(__file__).with_name("pretokenize.json")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
EAST = "[一-龥ࠀ-一가-\ud7ff]+"
STEPS = {
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST, r"\p{N}"],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
        r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    ],
    "qwen35": [
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"""
        r""" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    ],
}
MORE = [
    "क्षत्रिय 1234 и́ ёлка\u0301 \u0301a",
    "価格は12,345円です。カタカナ！ 한국어 12",
    "a\r\n\r\n b\n c$+<=>^~|`!? ``x``",
    "1234567 12 3\u3000x　 \t y ",
    "!word ?w #1 .a.b /usr/bin 'tis\n(…) «q» —z",
    "ab \u00a0 ͅx ٣٤٥٦ Ⅷ½ 🦙🏽x",
]


def pieces(text, expression):
    at = 0
    for match in regex.finditer(expression, text):
        if match.end() == match.start():
            continue
        if match.start() > at:
            yield text[at : match.start()]
        yield match.group()
        at = match.end()
    if at < len(text):
        yield text[at:]


def cut(text, steps):
    words = [text] if text else []
    for step in steps:
        words = [piece for word in words for piece in pieces(word, step)]
    return words


def main():
    cases = [case for case in json.loads(FILE.read_text()) if case["pre"] not in STEPS]
    texts = list(dict.fromkeys(case["text"] for case in cases)) + MORE
    cases += [
        {"pre": pre, "text": text, "words": cut(text, steps)} for pre, steps in STEPS.items() for text in texts
    ]
    FILE.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


main()
