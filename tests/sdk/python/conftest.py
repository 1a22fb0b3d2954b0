"""What every test needs: a client of the running gateway, and the binary that verifies."""

import json
import os
import subprocess

import openai
import pytest

QUESTION = [{"role": "user", "content": "12+45="}]
STORY = [{"role": "user", "content": "Extract JSON: Maria is a 42 year old baker from Oslo."}]


def required(name):
    value = os.environ.get(name)
    assert value, f"{name} is not set; `cargo xtask sdk` starts a network and sets it"
    return value


@pytest.fixture(scope="session")
def url():
    return required("ASSAY_URL")


@pytest.fixture(scope="session")
def client(url):
    # No retries, so that a test sees the first answer and not the third.
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture
def answer(client, model):
    """One answer with its receipt, as the OpenAI client returns it."""
    return client.chat.completions.create(model=model, messages=QUESTION, temperature=0)


@pytest.fixture(scope="session")
def verify():
    """Runs `assay verify` on a file; gives its exit code and what it said as JSON."""

    def run(path, *arguments):
        command = [required("ASSAY_BIN"), "verify", str(path), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        said = json.loads(done.stdout) if done.stdout.strip() else None
        return done.returncode, said

    return run
