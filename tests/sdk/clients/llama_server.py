"""Points llama.cpp's own server tests at a gateway, as they are, and counts those that apply.

A test applies if it asks only for what OpenAI's API has and expects no words of one particular model. The
others want llama.cpp's own routes (`/completion`, `/slots`, `/props`, …), fields (`timings`, `verbose`,
`return_progress`, GBNF grammars, a schema without a name), flags of its server, or what its test model writes.

They ask at `/chat/completions` where we have `/v1/chat/completions`, and would start servers and download
models of their own. Nothing else is touched: not what is sent, not what is expected.
"""

import json
import os

import utils

OPENAI = ("/chat/", "/completions", "/models", "/responses", "/embeddings")

APPLY = {
    "test_basic.py": {"test_server_start_simple"},
    "test_chat_completion.py": {
        "test_completion_with_response_format[response_format3-",
        "test_completion_with_response_format[response_format4-",
        *(f"test_invalid_chat_completion_req[messages{n}]" for n in range(2, 7)),
        "test_invalid_chat_completion_req[None]",
        "test_invalid_chat_completion_req[string]",
        "test_logprobs",
    },
    "test_embedding.py": {
        "test_embedding_invalid_input",
        "test_embedding_mixed_input[input2-False]",
        "test_embedding_mixed_input[input4-True]",
        "test_embedding_mixed_input[input6-True]",
        "test_embedding_mixed_input[string-False]",
        "test_embedding_multiple",
        "test_embedding_openai_library_base64",
        "test_embedding_openai_library_multiple",
        "test_embedding_openai_library_single",
        "test_embedding_pooling_mean",
        "test_embedding_pooling_mean_multiple",
        "test_embedding_single",
        "test_embedding_usage_multiple",
        "test_embedding_usage_single",
        "test_same_prompt_give_same_result",
    },
}

counts = {"passed": 0, "applying": 0, "others": 0, "failed": []}


def make_url(self, path, host=None):
    prefix = "/v1" if path.startswith(OPENAI) else ""
    return f"http://{host or self.server_host}:{self.server_port}{prefix}{path}"


utils.ServerPreset.load_all = staticmethod(lambda: None)
utils.ServerProcess.make_url = make_url


def applies(item):
    names = APPLY.get(item.path.name, set())
    cases = tuple(name for name in names if "[" in name)
    return item.originalname in names or bool(cases) and item.name.startswith(cases)


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if not applies(item)]
    items[:] = [item for item in items if applies(item)]
    config.hook.pytest_deselected(items=others)
    counts["applying"], counts["others"] = len(items), len(others)


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        counts["passed"] += 1
    elif report.failed:
        counts["failed"].append(report.nodeid)


def pytest_sessionfinish():
    with open(os.environ["ASSAY_COUNTS"], "w") as file:
        json.dump(counts, file)
