"""Learns nano's 1,024 tokens and writes tokenizer.json.

The merges come from the tasks and from WordNet's nouns, so that common English is
not spelt letter by letter. The tasks alone would do for accuracy; WordNet is what
NOTICE-WORDNET is about. From WordNet 3.0 this writes the shipped file byte for byte:

    python3 tokenizer.py dict/data.noun --out tokenizer.json

`data.noun` is in WordNet's own archive and in Debian's package `wordnet-base`.
"""

import argparse
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks import sample

VOCABULARY = 1024
# Their positions are their ids; train.py and the GGUF metadata rely on them.
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>"]
TASK_SAMPLES, TASK_SEED = 20_000, 7
# About a sixth of WordNet: enough to settle 762 merges, and the first 2 MB are nouns.
WORDNET_CHARACTERS = 2_000_000


def task_lines() -> list[str]:
    """Prompts with their answers, held-out ones included: only merges are learnt here."""
    random = Random(TASK_SEED)
    drawn = (sample(random) for _ in range(TASK_SAMPLES))
    return [f"{exercise.prompt} {exercise.answer}" for exercise in drawn]


def wordnet_lines(path: Path) -> list[str]:
    """One line per synset, `word, other word: gloss`, cut at WORDNET_CHARACTERS."""
    lines = path.read_text(encoding="latin-1").split("\n")
    # The licence at the top is indented by two spaces; synsets start with a number.
    text = "\n".join(synset(line) for line in lines if line and not line.startswith("  "))
    return text[:WORDNET_CHARACTERS].split("\n")


def synset(line: str) -> str:
    """Reads one record: offset, file, type, word count in hex, (word, id)…, then the gloss."""
    record, gloss = line.split("| ", 1)
    fields = record.split()
    count = int(fields[3], 16)
    words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
    return f"{', '.join(words)}: {gloss.strip()}"


def learn(lines: list[str]) -> Tokenizer:
    """Byte-level BPE with single digits, which GGUF files call "smollm"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nouns", type=Path, help="data.noun of WordNet 3.0")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    learn(task_lines() + wordnet_lines(options.nouns)).save(str(options.out))


if __name__ == "__main__":
    main()
