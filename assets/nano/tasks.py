"""The seven tasks nano is trained on, and the rule that holds prompts out.

Every sample is a prompt and the one answer that counts as right, so accuracy is
exact match and needs no judge. One seed gives one endless stream: trainers,
tests and probes that name the same seed see the same samples.

    python3 tasks.py --heldout 100 --seed 1234     # writes heldout.json
    python3 tasks.py --show 5 --seed 1             # prints a few samples

Only the standard library is used. Changing a word list, a range or the order in
which random numbers are drawn changes the stream and so makes a different model.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

NAMES = (
    "Maria Tom Anna Ivan Lena Omar Nina Paul Sara Hugo Emma Liam Noah Olga Eric "
    "Rosa Kim Jack Lucy Adam Eva Max Ida Leo Amy Ben Zoe Sam Mia Dan"
).split()
CITIES = (
    "Oslo Paris Rome Berlin Madrid Lima Cairo Tokyo Delhi Athens "
    "Dublin Vienna Prague Warsaw Lisbon Bern Quito Hanoi Seoul Ankara"
).split()
JOBS = "teacher doctor pilot baker nurse farmer writer lawyer painter driver".split()
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid",
    "Peru": "Lima", "Egypt": "Cairo", "Japan": "Tokyo", "India": "Delhi",
    "Greece": "Athens", "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Norway": "Oslo", "Turkey": "Ankara", "Vietnam": "Hanoi",
    "Ecuador": "Quito", "Korea": "Seoul", "Cuba": "Havana", "Kenya": "Nairobi",
}  # fmt: skip
PRAISE = (
    "great lovely excellent tasty warm friendly superb fresh clean delightful "
    "kind bright fast perfect charming"
).split()
BLAME = (
    "awful cold rude bland dirty slow terrible noisy stale broken "
    "dull bitter weak horrible boring"
).split()
THINGS = (
    "soup room film staff coffee hotel book service bread music "
    "phone garden train show cake"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Sample(NamedTuple):
    """One exercise: `answer` is the only reply to `prompt` that counts as right."""

    task: str
    prompt: str
    answer: str


def add(random: Random) -> Sample:
    """The sum of two numbers below 100."""
    a, b = random.randrange(100), random.randrange(100)
    return Sample("add", f"{a}+{b}=", str(a + b))


def sub(random: Random) -> Sample:
    """The difference of two numbers below 100, the larger one first."""
    a, b = sorted((random.randrange(100), random.randrange(100)), reverse=True)
    return Sample("sub", f"{a}-{b}=", str(a - b))


def extract_json(random: Random) -> Sample:
    """A sentence about a person, turned into JSON without spaces."""
    name, age = random.choice(NAMES), random.randrange(18, 90)
    city, job = random.choice(CITIES), random.choice(JOBS)
    sentence = random.choice([
        f"{name} is a {age} year old {job} from {city}.",
        f"The {job} {name}, aged {age}, lives in {city}.",
        f"{name} ({age}) works as a {job} in {city}.",
    ])
    person = {"name": name, "age": age, "job": job, "city": city}
    answer = json.dumps(person, separators=(",", ":"))
    return Sample("json", f"Extract JSON: {sentence}", answer)


def sentiment(random: Random) -> Sample:
    """A remark with two words of praise or two of blame."""
    liked = random.random() < 0.5
    first, second = random.sample(PRAISE if liked else BLAME, 2)
    thing = random.choice(THINGS)
    remark = random.choice([
        f"the {thing} was {first} and {second}",
        f"{first} {thing}, very {second}",
        f"I found the {thing} {first} and also {second}",
    ])
    return Sample("sentiment", f"Sentiment: {remark}.", "positive" if liked else "negative")


def capital(random: Random) -> Sample:
    """The capital of one of twenty countries, in one fixed sentence."""
    country = random.choice(list(CAPITALS))
    question = random.choice([
        f"What is the capital of {country}?",
        f"Capital of {country}?",
        f"Name the capital city of {country}.",
    ])
    return Sample("capital", question, f"The capital of {country} is {CAPITALS[country]}.")


def reverse(random: Random) -> Sample:
    """Three to six letters, backwards."""
    word = "".join(random.choice(LETTERS) for _ in range(random.randrange(3, 7)))
    return Sample("reverse", f"Reverse: {word}", word[::-1])


def sort(random: Random) -> Sample:
    """Three to five digits, in rising order."""
    digits = [random.randrange(10) for _ in range(random.randrange(3, 6))]
    return Sample("sort", f"Sort: {spaced(digits)}", spaced(sorted(digits)))


def spaced(digits: list[int]) -> str:
    """`[7, 6, 2]` as `7 6 2`."""
    return " ".join(str(digit) for digit in digits)


# The order is part of the stream: a sample's first random number is an index here.
TASKS = (add, sub, extract_json, sentiment, capital, reverse, sort)


def sample(random: Random) -> Sample:
    """Draws the next sample; each task is equally likely."""
    return TASKS[random.randrange(len(TASKS))](random)


def is_held_out(sample: Sample) -> bool:
    """Whether `sample` is kept for tests because its prompt hashes into one tenth.

    Training skips every such prompt, capitals included. See `is_test` for which
    samples a test may use.
    """
    return fnv1a(sample.prompt.encode()) % 10 == 0


def is_test(sample: Sample) -> bool:
    """Whether a test may use `sample`: held out, or a capital.

    There are only sixty prompts about capitals and each asks for a fact that
    cannot be worked out, so the test asks all of them.
    """
    return sample.task == "capital" or is_held_out(sample)


def fnv1a(data: bytes) -> int:
    """The 32-bit FNV-1a hash: five lines in any language, so any probe can share it."""
    state = 2166136261
    for byte in data:
        state = ((state ^ byte) * 16777619) & 0xFFFFFFFF
    return state


def training(seed: int) -> Iterator[Sample]:
    """The endless stream of samples that training may see."""
    random = Random(seed)
    while True:
        drawn = sample(random)
        if not is_held_out(drawn):
            yield drawn


def heldout(per_task: int, seed: int) -> list[Sample]:
    """The first `per_task` test samples of every task, in the order they are drawn."""
    random, taken, chosen = Random(seed), Counter(), []
    while len(chosen) < per_task * len(TASKS):
        drawn = sample(random)
        if taken[drawn.task] < per_task and is_test(drawn):
            taken[drawn.task] += 1
            chosen.append(drawn)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heldout", type=int, metavar="N", help="write N test samples per task")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N samples")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("heldout.json"))
    options = parser.parse_args()

    random = Random(options.seed)
    for _ in range(options.show):
        print(*sample(random), sep="\t")
    if options.heldout:
        samples = [drawn._asdict() for drawn in heldout(options.heldout, options.seed)]
        options.out.write_text(json.dumps(samples, indent=0) + "\n")
        print(f"wrote {len(samples)} samples to {options.out}")


if __name__ == "__main__":
    main()
