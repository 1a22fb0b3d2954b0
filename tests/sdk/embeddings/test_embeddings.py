"""Embeddings by all-MiniLM-L6-v2, through OpenAI's client: the figures that its authors publish.

The float model's cosines between the three sentences are 0.6660, 0.1046 and 0.1411. Eight-bit weights
and activations move them a little; how little is part of what is checked.
"""

import base64
import concurrent.futures
import json
import os
import struct
import subprocess
import urllib.request

import openai
import pytest

URL, BINARY = os.environ["ASSAY_URL"], os.environ["ASSAY_BIN"]
MODEL = "all-MiniLM-L6-v2"
SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]
COSINES = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}
TOLERANCE = 0.005
IDS = [101, 1996, 4633, 2003, 8403, 2651, 1012, 102]
FIRST = [0.019196, 0.120085, 0.159598, 0.067066, 0.050075]


@pytest.fixture(scope="module")
def client():
    return openai.OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=120)


def raw(**body):
    """A request past the client, which hides what it does not know; gives status and body."""
    data = json.dumps({"model": MODEL, **body}).encode()
    request = urllib.request.Request(f"{URL}/v1/embeddings", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def test_the_known_answers(client):
    reply = client.embeddings.create(model=MODEL, input=SENTENCES)
    vectors = [item.embedding for item in reply.data]
    assert [item.index for item in reply.data] == [0, 1, 2]
    assert all(len(vector) == 384 and abs(dot(vector, vector) - 1) < 1e-5 for vector in vectors)
    found = {pair: dot(vectors[pair[0]], vectors[pair[1]]) for pair in COSINES}
    print(found)
    for pair, cosine in COSINES.items():
        assert abs(found[pair] - cosine) < TOLERANCE, (pair, found[pair], cosine)
    assert all(abs(x - y) < 0.01 for x, y in zip(vectors[0], FIRST))
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > len(IDS)


def test_a_receipt_holds_the_tokens_and_is_replayed(tmp_path):
    _, body = raw(input=SENTENCES[0])
    answer = body["assay"]
    assert answer["terms"]["prompt"] == IDS and body["usage"]["prompt_tokens"] == len(IDS)
    assert (answer["order"]["assurance"], answer["receipt"]["outputTokens"]) == ("scored", 1)
    # A number divided by 2^30 and rounded to binary32 is what clients get.
    floats = [struct.unpack("<f", struct.pack("<f", n / 2**30))[0] for n in answer["vector"]]
    told = [struct.unpack("<f", struct.pack("<f", n))[0] for n in body["data"][0]["embedding"]]
    assert floats == told

    def verify(document):
        path = tmp_path / "receipt.json"
        path.write_text(json.dumps(document))
        done = subprocess.run([BINARY, "verify", path, "--json"], capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)

    code, said = verify(body)
    assert (code, said["verdict"]) == (0, True), said
    with urllib.request.urlopen(f"{URL}/v1/receipts/{body['data'][0]['receipt']}") as reply:
        kept = json.load(reply)
    assert kept["vector"] == answer["vector"] and verify(kept)[0] == 0
    answer["vector"][200] ^= 1
    code, said = verify(answer)
    assert (code, said["blame"]) == (10, "file"), said


def test_forms_of_input_and_output(client):
    whole = client.embeddings.create(model=MODEL, input=SENTENCES[0]).data[0].embedding
    ids = client.embeddings.create(model=MODEL, input=[IDS, IDS])
    assert all(item.embedding == whole for item in ids.data)
    short = client.embeddings.create(model=MODEL, input=SENTENCES[0], dimensions=64).data[0].embedding
    length = dot(whole[:64], whole[:64]) ** 0.5
    assert len(short) == 64 and abs(dot(short, short) - 1) < 1e-5
    assert all(abs(a - b / length) < 1e-6 for a, b in zip(short, whole))
    _, coded = raw(input=SENTENCES[0], encoding_format="base64")
    numbers = struct.unpack("<384f", base64.b64decode(coded["data"][0]["embedding"]))
    _, plain = raw(input=SENTENCES[0], encoding_format="float")
    assert list(numbers) == [struct.unpack("<f", struct.pack("<f", n))[0] for n in plain["data"][0]["embedding"]]


def test_what_cannot_be_had_is_named(client):
    for wrong in ["", [], ["a", ""], ["a"] * 2049, "word " * 600, [30522], 7]:
        status, body = raw(input=wrong)
        assert status == 400 and body["error"]["message"], str(wrong)[:40]
    assert raw(input="a", dimensions=385)[0] == 400
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    assert refused.value.code == "model_not_supported"
    card = client.models.retrieve(MODEL).model_dump()
    assert (card["capabilities"], card["dimensions"]) == (["embeddings"], 384)


def test_many_at_once_are_the_same_as_alone(client):
    texts = [f"sentence number {n}" for n in range(40)]
    together = client.embeddings.create(model=MODEL, input=texts)
    assert [item.index for item in together.data] == list(range(40))

    def alone(text):
        return client.embeddings.create(model=MODEL, input=text).data[0].embedding

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(alone, texts[:8])) == [item.embedding for item in together.data[:8]]
