"""Trains nano from nothing on one processor core.

    python3 train.py --out DIR              # 2,400 steps, about half an hour
    python3 train.py --out DIR --steps 60   # a smoke run of about a minute
    python3 export.py DIR/checkpoint.npz --out DIR

Started again with the same arguments, an interrupted run goes on from its last
checkpoint and ends with the weights it would have had without the interruption.
The model is in model.py, the data in tasks.py.
"""

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from model import END, SHAPE, Weights, answers, fresh_weights, logits, prompt_ids
from tasks import Sample, heldout, training

HERE = Path(__file__).parent
DATA_SEED, TEST_SEED = 1, 99

ROWS = 32  # per batch, each of `Shape.context` tokens
PROMPT_WEIGHT = 0.1  # prompts teach the language of the tasks, answers (1.0) the tasks
PEAK_RATE, LAST_RATE_SHARE, WARM_UP_STEPS = 4e-3, 0.05, 60
BETA_FIRST, BETA_SECOND, ADAM_EPSILON = 0.9, 0.95, 1e-8
WEIGHT_DECAY, GRADIENT_NORM_MAX = 0.05, 1.0


# --- the data ------------------------------------------------------------------------


def batches(tokenizer: Tokenizer, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Samples end to end, cut into (ROWS, context + 1) ids and the weight of each."""
    ids, worth, size = [], [], ROWS * (context + 1)
    for exercise in training(DATA_SEED):
        asked = prompt_ids(tokenizer, exercise.prompt)
        answered = tokenizer.encode(exercise.answer).ids + [END]
        ids += asked + answered
        worth += [PROMPT_WEIGHT] * len(asked) + [1.0] * len(answered)
        if len(ids) >= size:
            yield (
                np.array(ids[:size], np.int32).reshape(ROWS, -1),
                np.array(worth[:size], np.float32).reshape(ROWS, -1),
            )
            ids, worth = ids[size:], worth[size:]


# --- the optimiser: AdamW with warm-up, cosine decay and clipped gradients -----------


def loss(weights: Weights, tokens: jax.Array, worth: jax.Array) -> jax.Array:
    """Weighted mean of nats per token, each position predicting its successor."""
    chances = jax.nn.log_softmax(logits(weights, tokens[:, :-1]))
    nats = -jnp.take_along_axis(chances, tokens[:, 1:, None], -1)[..., 0]
    return jnp.sum(nats * worth[:, 1:]) / jnp.sum(worth[:, 1:])


@jax.jit
def improve(weights, first, second, step, rate, tokens, worth):
    """One step: new weights, new moments, and the loss before it. `step` counts from 0."""
    cost, slopes = jax.value_and_grad(loss)(weights, tokens, worth)
    length = jnp.sqrt(sum(jnp.sum(slope * slope) for slope in slopes.values()))
    clip = jnp.minimum(1.0, GRADIENT_NORM_MAX / (length + 1e-6))
    slopes = {name: slope * clip for name, slope in slopes.items()}

    first = {name: BETA_FIRST * first[name] + (1 - BETA_FIRST) * slopes[name] for name in slopes}
    second = {name: BETA_SECOND * second[name] + (1 - BETA_SECOND) * slopes[name] ** 2 for name in slopes}
    first_bias, second_bias = 1 - BETA_FIRST ** (step + 1), 1 - BETA_SECOND ** (step + 1)

    def moved(name: str) -> jax.Array:
        change = (first[name] / first_bias) / (jnp.sqrt(second[name] / second_bias) + ADAM_EPSILON)
        return weights[name] * (1 - rate * WEIGHT_DECAY) - rate * change

    return {name: moved(name) for name in weights}, first, second, cost


def learning_rate(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return PEAK_RATE * warm_up * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * cosine)


# --- checkpoints ---------------------------------------------------------------------


@dataclass
class Run:
    """Where a training stands. The data is not kept: it is drawn again from its seed."""

    steps: int  # planned in all; the learning rate depends on it
    step: int  # done
    mean_loss: float  # running mean, of which each step replaces a twentieth
    weights: Weights
    first: Weights
    second: Weights

    @classmethod
    def fresh(cls, steps: int) -> "Run":
        weights = fresh_weights(SHAPE)
        zeros = {name: jnp.zeros_like(weight) for name, weight in weights.items()}
        return cls(steps, 0, math.nan, weights, zeros, dict(zeros))

    def save(self, path: Path) -> None:
        """Replaces the file in one move, so a crash leaves the old one whole."""
        facts = {"shape": asdict(SHAPE), "steps": self.steps, "step": self.step, "mean_loss": self.mean_loss}
        arrays = {f"{kind}/{name}": np.asarray(array)
                  for kind in ("weights", "first", "second")
                  for name, array in getattr(self, kind).items()}  # fmt: skip
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, facts=json.dumps(facts), **arrays)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, steps: int) -> "Run":
        with np.load(path) as file:
            facts = json.loads(str(file["facts"]))
            kinds = {kind: {} for kind in ("weights", "first", "second")}
            for key in file.files:
                kind, _, name = key.partition("/")
                if name:
                    kinds[kind][name] = jnp.asarray(file[key])
        if facts["steps"] != steps or facts["shape"] != asdict(SHAPE):
            found, expected = (facts["steps"], facts["shape"]), (steps, asdict(SHAPE))
            raise SystemExit(f"{path} is from another run: steps and shape {found}, expected {expected}")
        return cls(steps, facts["step"], facts["mean_loss"], **kinds)


# --- the run -------------------------------------------------------------------------


def train(run: Run, tokenizer: Tokenizer, checkpoint: Path, every: int) -> None:
    """Takes `run` to its last step, reporting and saving every `every` steps."""
    began, cpu_began, done_before = time.time(), time.process_time(), run.step
    for step, (tokens, worth) in zip(range(run.steps), batches(tokenizer, SHAPE.context), strict=False):
        if step < run.step:
            continue  # drawn before the interruption
        rate = learning_rate(step, run.steps)
        run.weights, run.first, run.second, cost = improve(
            run.weights, run.first, run.second, step, rate, tokens, worth
        )
        run.step, cost = step + 1, float(cost)
        run.mean_loss = cost if step == 0 else 0.95 * run.mean_loss + 0.05 * cost
        if run.step % every == 0 or run.step == run.steps:
            seconds, done = time.time() - began, run.step - done_before
            left = seconds / done * (run.steps - run.step)
            print(f"step {run.step}/{run.steps}  loss {run.mean_loss:.3f}  "
                  f"tokens {run.step * ROWS * SHAPE.context / 1e6:.2f} M  "
                  f"cpu {time.process_time() - cpu_began:.0f} s  left {left:.0f} s", flush=True)  # fmt: skip
            run.save(checkpoint)


def accuracy(weights: Weights, tokenizer: Tokenizer, exercises: list[Sample]) -> dict[str, float]:
    """The share of exact answers per task."""
    asked, right = Counter(), Counter()
    for start in range(0, len(exercises), 70):  # bounds the memory of one forward pass
        group = exercises[start : start + 70]
        said = answers(weights, tokenizer, [exercise.prompt for exercise in group])
        asked.update(exercise.task for exercise in group)
        right.update(
            exercise.task
            for exercise, answer in zip(group, said, strict=True)
            if answer == exercise.answer
        )
    return {task: right[task] / asked[task] for task in sorted(asked)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.npz")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "tokenizer.json", help="see tokenizer.py")
    parser.add_argument("--every", type=int, default=50, help="steps between reports and checkpoints")
    parser.add_argument("--test", type=int, default=20, help="held-out samples per task at the end; 0 for none")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.npz"
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    run = Run.load(checkpoint, options.steps) if checkpoint.exists() else Run.fresh(options.steps)
    parameters = sum(weight.size for weight in run.weights.values())
    print(f"{parameters:,} parameters, from step {run.step}", flush=True)
    train(run, tokenizer, checkpoint, options.every)
    if options.test:
        scores = accuracy(run.weights, tokenizer, heldout(options.test, TEST_SEED))
        print(f"exact answers, {options.test} prompts per task:")
        for task, share in scores.items():
            print(f"  {task:9} {share:.2f}")


if __name__ == "__main__":
    main()
