"""What an operator looks at: figures for Prometheus, liveness, readiness."""

import json
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from conftest import QUESTION


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.headers, reply.read().decode()


def figures(url):
    headers, page = get(f"{url}/metrics")
    assert headers["content-type"].startswith("application/openmetrics-text")
    families = list(text_string_to_metric_families(page))
    assert all(family.name.startswith("assay_") for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_answer_is_counted(url, client, model):
    before = figures(url)
    reply = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)
    after = figures(url)

    def more(name, **labels):
        key = (name, tuple(sorted({"model": model, **labels}.items())))
        return after[key] - before.get(key, 0)

    usage = reply.usage
    assert more("assay_prompt_tokens_total") >= usage.prompt_tokens
    assert more("assay_generation_tokens_total") >= usage.completion_tokens
    assert more("assay_request_success_total", finished_reason="stop") >= 1
    assert more("assay_time_to_first_token_seconds_count") >= 1
    assert more("assay_e2e_request_latency_seconds_count") >= 1
    assert after[("assay_model_ready", (("model", model),))] == 1


def test_what_clients_make_up_is_no_label(url, client):
    before = len(figures(url))
    for n in range(20):
        try:
            get(f"{url}/v1/made/up/{n}")
        except urllib.error.HTTPError as error:
            assert error.code == 404
    assert len(figures(url)) - before < 40


def test_it_lives_and_is_ready(url):
    for path in ("livez", "readyz"):
        _, said = get(f"{url}/{path}")
        assert json.loads(said)["status"] in ("ok", "ready")
