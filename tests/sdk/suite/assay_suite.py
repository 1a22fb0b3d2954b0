"""Runs the API tests of OpenAI's Python client against a gateway, as they are, and counts them.

The tests were written for a mock, and name things that nobody has made, such as `file_id`. Before such a
request leaves, this plugin makes a thing of that kind on the gateway and puts its real id in the name's
place. Nothing else is touched: not what is sent, not what is expected, not what the gateway says.
"""

import itertools
import json
import os
import urllib.request

import openai._base_client as base_client

BASE = os.environ["TEST_API_BASE_URL"]

# Tests of what the gateway does not claim to do, with the reason.
UNCLAIMED = {
    "test_models.py": {"_delete": "models belong to the network, and are not deleted by clients"},
    "test_responses.py": {"_compact": "conversations are not compacted"},
}

# Tests that ask for what is refused by name. They count as failed, and nothing else may fail.
REFUSED = {
    "test_completions.py::TestCompletions::test_method_create_with_all_params": "suffix",
    "test_completions.py::TestAsyncCompletions::test_method_create_with_all_params": "suffix",
    "test_responses.py::TestResponses::test_method_create_with_all_params": "conversation",
    "test_responses.py::TestAsyncResponses::test_method_create_with_all_params": "conversation",
    "test_input_tokens.py::TestInputTokens::test_method_count_with_all_params": "conversation",
    "test_input_tokens.py::TestAsyncInputTokens::test_method_count_with_all_params": "conversation",
}

# Tests that no server passes which does as it is asked: unless told otherwise, the client asks for base64,
# and where it is told to be strict it takes that for a mistake before it decodes it. They count as failed.
STRICT_BASE64 = ("test_embeddings.py", ("_create[strict]", "_create[aiohttp]"))


def call(path, body=None, content_type="application/json"):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(f"{BASE}{path}", data, {"content-type": content_type})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


def completion():
    messages = [{"role": "assistant", "content": "hello"}]
    body = {"model": "any", "messages": messages, "max_tokens": 2, "store": True}
    return call("/chat/completions", body)["id"]


def response(background=False):
    body = {"model": "any", "input": "hello", "max_output_tokens": 2, "background": background}
    return call("/responses", body)["id"]


def file():
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"input": "hi"}}
    bound = "assay-suite"
    parts = {"purpose": ("", "batch"), "file": ('; filename="in.jsonl"', json.dumps(line))}
    body = "".join(
        f'--{bound}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n{text}\r\n'
        for name, (more, text) in parts.items()
    )
    body = f"{body}--{bound}--\r\n".encode()
    return call("/files", body, f"multipart/form-data; boundary={bound}")["id"]


def batch():
    body = {"input_file_id": file(), "endpoint": "/v1/responses", "completion_window": "24h"}
    return call("/batches", body)["id"]


KINDS = {
    "completion_id": completion,
    "response_id": response,
    "resp_677efb5139a88190b512bc3fef8e535d": response,
    "file_id": file,
    "batch_id": batch,
}


def real(options):
    """Puts ids of real things into a request."""
    segments = options.url.split("/")
    # Some tests of a file's content answer themselves: their request never leaves the process.
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    if segments[-1] != "content" or "retrieve_content" in test:
        for place, segment in enumerate(segments):
            if segment in KINDS:
                background = KINDS[segment] is response and segments[-1] == "cancel"
                segments[place] = response(background=True) if background else KINDS[segment]()
        options.url = "/".join(segments)
    body = options.json_data
    if isinstance(body, dict) and body.get("input_file_id") == "input_file_id":
        options.json_data = {**body, "input_file_id": file()}


def build(original):
    def build_request(self, options, **more):
        real(options)
        return original(self, options, **more)

    return build_request


base_client.BaseClient._build_request = build(base_client.BaseClient._build_request)


def pytest_collection_modifyitems(config, items):
    def claimed(item):
        reasons = UNCLAIMED.get(item.path.name, {})
        return not any(mark in item.name for mark in reasons)

    config.hook.pytest_deselected(items=[item for item in items if not claimed(item)])
    items[:] = [item for item in items if claimed(item)]


def pytest_terminal_summary(terminalreporter, config):
    if hasattr(config, "workerinput"):
        return
    stats = terminalreporter.stats
    ids = {
        outcome: [report.nodeid for report in stats.get(outcome, [])]
        for outcome in ("passed", "failed", "error", "skipped")
    }
    wrong = sorted(set(itertools.chain(ids["failed"], ids["error"])))

    def is_refused(test):
        if STRICT_BASE64[0] in test:
            return test.endswith(STRICT_BASE64[1])
        return any(known in test for known in REFUSED) and "/chat/" not in test

    counts = {
        "passed": len(ids["passed"]),
        "total": len(ids["passed"]) + len(wrong) + len(ids["skipped"]),
        "refused": [test for test in wrong if is_refused(test)],
        "broken": [test for test in wrong if not is_refused(test)],
    }
    with open(os.environ["ASSAY_SUITE_COUNTS"], "w", encoding="utf-8") as file:
        json.dump(counts, file, indent=1)
