"""Writes a checkpoint of train.py as two GGUF files: nano-f32.gguf and nano-q8_0.gguf.

    python3 export.py DIR/checkpoint.npz --out DIR

Needs numpy and gguf only. Given the shipped weights it writes the shipped files byte
for byte; the order of fields and tensors below is theirs.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

HERE = Path(__file__).parent

# The name in the file's metadata, older than "nano". Another name is another sha256.
NAME = "assay-tiny"
# What the header promises to readers. Training used 128 positions (see README.md).
CONTEXT = 2048
PAD, BOS, EOS = 0, 1, 2
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<eos>' if m['role']=='assistant'"
    " else '<|' + m['role'] + '|>' + m['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Our names of a layer's tensors, and GGUF's.
LAYER_TENSORS = {
    "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm",
    "value": "attn_v",
    "attention_output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "query": "attn_q",
    "key": "attn_k",
}


def load(checkpoint: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The shape (fields of `model.Shape`) and the weights by our names."""
    with np.load(checkpoint) as file:
        shape = json.loads(str(file["facts"]))["shape"]
        keys = [key for key in file.files if key.startswith("weights/")]
        return shape, {key.removeprefix("weights/"): file[key] for key in keys}


def tensors(shape: dict, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights by GGUF's names and in its layout. Without `output.weight`: tied."""
    named = {"token_embd.weight": weights["embedding"], "output_norm.weight": weights["norm"]}
    heads = {"query": shape["heads"], "key": shape["kv_heads"]}
    for layer in range(shape["layers"]):
        for ours, theirs in LAYER_TENSORS.items():
            weight = weights[f"{layer}.{ours}"]
            if ours in heads:
                weight = interleaved(weight, heads[ours])
            named[f"blk.{layer}.{theirs}.weight"] = weight
    return named


def interleaved(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the outputs of each head for the rotation that GGUF's "llama" does.

    We rotate element i together with i + D/2; it rotates 2i together with 2i + 1.
    """
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write(path: Path, shape: dict, named: dict[str, np.ndarray], tokenizer: dict, quantised: bool) -> None:
    """Writes one file; `quantised` means matrices in Q8_0, norms always stay f32."""
    writer = GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if quantised else LlamaFileType.ALL_F32)
    describe_model(writer, shape)
    describe_tokenizer(writer, tokenizer)
    for name, array in named.items():
        array = np.ascontiguousarray(array, np.float32)
        if quantised and array.ndim == 2:
            blocks = gguf.quants.quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe_model(writer: GGUFWriter, shape: dict) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(shape["epsilon"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_rope_dimension_count(shape["width"] // shape["heads"])
    writer.add_vocab_size(shape["vocabulary"])


def describe_tokenizer(writer: GGUFWriter, tokenizer: dict) -> None:
    """`tokenizer` is tokenizer.json as parsed: vocabulary, merges and special tokens."""
    ids = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint.npz of train.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "tokenizer.json", help="of the training")
    options = parser.parse_args()

    shape, weights = load(options.checkpoint)
    named = tensors(shape, weights)
    tokenizer = json.loads(options.tokenizer.read_text(encoding="utf-8"))
    for name, quantised in (("nano-f32.gguf", False), ("nano-q8_0.gguf", True)):
        path = options.out / name
        write(path, shape, named, tokenizer, quantised)
        print(f"wrote {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
