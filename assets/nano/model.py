"""Nano itself: a small llama in plain JAX, and the way it answers a prompt.

Every matrix is (outputs, inputs), as GGUF stores it. In shapes, B is rows in a batch,
T positions, H heads and D the width of a head.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

END, USER, ASSISTANT = 2, 3, 4  # ids of <eos>, <|user|> and <|assistant|>
WEIGHT_SEED = 0

Weights = dict[str, jax.Array]


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; export.py writes them into the GGUF header."""

    vocabulary: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 352
    context: int = 128  # positions seen in training
    rope_base: float = 10_000.0
    epsilon: float = 1e-5  # added to the mean square in the norms

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads


SHAPE = Shape()


def fresh_weights(shape: Shape) -> Weights:
    """Normal noise of deviation 0.02, less where a layer writes to the residual stream."""
    random = np.random.default_rng(WEIGHT_SEED)
    calm = 0.02 / math.sqrt(2 * shape.layers)

    def noise(outputs: int, inputs: int, deviation: float = 0.02) -> jax.Array:
        return jnp.asarray(random.normal(0, deviation, (outputs, inputs)), jnp.float32)

    width, kv_width = shape.width, shape.kv_heads * shape.head
    weights = {"embedding": noise(shape.vocabulary, width), "norm": jnp.ones(width)}
    for layer in range(shape.layers):
        weights |= {
            f"{layer}.attention_norm": jnp.ones(width),
            f"{layer}.query": noise(width, width),
            f"{layer}.key": noise(kv_width, width),
            f"{layer}.value": noise(kv_width, width),
            f"{layer}.attention_output": noise(width, width, calm),
            f"{layer}.feed_forward_norm": jnp.ones(width),
            f"{layer}.gate": noise(shape.feed_forward, width),
            f"{layer}.up": noise(shape.feed_forward, width),
            f"{layer}.down": noise(width, shape.feed_forward, calm),
        }
    return weights


def logits(weights: Weights, tokens: jax.Array, shape: Shape = SHAPE) -> jax.Array:
    """Scores every next token: (B, T) ids in, (B, T, vocabulary) out.

    The embedding is also the output matrix ("tied").
    """
    x = weights["embedding"][tokens]
    for layer in range(shape.layers):
        part = {name: weights[f"{layer}.{name}"] for name in (
            "attention_norm", "query", "key", "value", "attention_output",
            "feed_forward_norm", "gate", "up", "down",
        )}  # fmt: skip
        x = x + attention(part, normed(x, part["attention_norm"], shape), shape)
        x = x + feed_forward(part, normed(x, part["feed_forward_norm"], shape))
    return normed(x, weights["norm"], shape) @ weights["embedding"].T


def normed(x: jax.Array, scale: jax.Array, shape: Shape) -> jax.Array:
    """Divides each vector by its root mean square."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + shape.epsilon) * scale


def attention(part: Weights, x: jax.Array, shape: Shape) -> jax.Array:
    """Causal attention in which each key head serves `heads / kv_heads` query heads."""
    rows, positions, _ = x.shape
    query = rotated((x @ part["query"].T).reshape(rows, positions, shape.heads, -1), shape)
    key = rotated((x @ part["key"].T).reshape(rows, positions, shape.kv_heads, -1), shape)
    value = (x @ part["value"].T).reshape(rows, positions, shape.kv_heads, -1)
    key, value = (jnp.repeat(one, shape.heads // shape.kv_heads, axis=2) for one in (key, value))

    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(shape.head)
    visible = jnp.tril(jnp.ones((positions, positions), bool))
    shares = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), -1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", shares, value)
    return mixed.reshape(rows, positions, -1) @ part["attention_output"].T


def rotated(x: jax.Array, shape: Shape) -> jax.Array:
    """Rotary positions on (B, T, H, D): element i turns together with element i + D/2."""
    turns = shape.rope_base ** (-jnp.arange(0, shape.head, 2) / shape.head)
    angles = jnp.outer(jnp.arange(x.shape[1]), turns)[:, None, :]
    low, high = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], -1)


def feed_forward(part: Weights, x: jax.Array) -> jax.Array:
    """The gated layer that llama models use (SwiGLU)."""
    return (jax.nn.silu(x @ part["gate"].T) * (x @ part["up"].T)) @ part["down"].T


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """One user turn and the opening of the answer, as the chat template writes it."""
    return [USER, *tokenizer.encode(prompt).ids, ASSISTANT]


def answers(weights: Weights, tokenizer: Tokenizer, prompts: list[str], tokens_max: int = 48) -> list[str]:
    """The greedy answer to each prompt, all prompts at once and without a cache."""
    starts = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    rows, ends = np.arange(len(starts)), np.array([len(start) for start in starts])
    ids = np.zeros((len(starts), int(ends.max()) + tokens_max), np.int32)
    for row, start in enumerate(starts):
        ids[row, : len(start)] = start

    # Padding lies after the position that is read, and attention never looks ahead.
    best = jax.jit(lambda weights, ids, at: logits(weights, ids)[rows, at].argmax(-1))
    running = np.ones(len(starts), bool)
    for _ in range(tokens_max):
        chosen = np.asarray(best(weights, ids, ends - 1))
        running &= chosen != END
        if not running.any():
            break
        ids[rows[running], ends[running]] = chosen[running]
        ends[running] += 1
    spoken = (ids[row, len(start) : ends[row]] for row, start in enumerate(starts))
    return [tokenizer.decode(list(answer), skip_special_tokens=False) for answer in spoken]
