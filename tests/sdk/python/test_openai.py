"""The official Python client, used as its documentation shows, against the gateway."""

import re

import openai
import pytest

from conftest import QUESTION, STORY


def stream_of(client, **request):
    chunks = list(client.chat.completions.create(stream=True, **request))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    return chunks, text


def test_models_are_listed_and_found(client, model):
    listed = client.models.list().data
    assert [entry.object for entry in listed] == ["model"] * len(listed)
    found = client.models.retrieve(model)
    assert (found.id, found.object) == (model, "model")
    assert isinstance(found.created, int)


def test_the_model_answers(answer, model):
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == model
    choice = answer.choices[0]
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    assert choice.message.content == "57"


def test_usage_adds_up(answer):
    usage = answer.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("messages", [QUESTION, STORY])
def test_a_stream_says_what_the_plain_answer_says(client, model, messages):
    request = {"model": model, "messages": messages, "temperature": 0}
    plain = client.chat.completions.create(**request)
    chunks, text = stream_of(client, **request)
    assert text == plain.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [finish for finish in finishes if finish is not None] == ["stop"]


def test_a_seed_repeats_an_answer_and_a_stream(client, model):
    request = {"model": model, "messages": STORY, "temperature": 1.5, "seed": 11, "max_tokens": 30}
    first = client.chat.completions.create(**request).choices[0].message.content
    second = client.chat.completions.create(**request).choices[0].message.content
    _, streamed = stream_of(client, **request)
    assert first == second == streamed


def test_different_seeds_give_different_answers(client, model):
    request = {"model": model, "messages": STORY, "temperature": 2, "max_tokens": 20}
    texts = {
        client.chat.completions.create(seed=seed, **request).choices[0].message.content
        for seed in range(6)
    }
    assert len(texts) > 1


def test_a_stream_reports_usage_when_asked(client, model, answer):
    request = {"model": model, "messages": QUESTION, "temperature": 0}
    chunks, _ = stream_of(client, stream_options={"include_usage": True}, **request)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    chunks, _ = stream_of(client, **request)
    assert all(chunk.choices for chunk in chunks)


def test_length_ends_an_answer(client, model):
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        answer = client.chat.completions.create(
            model=model, messages=STORY, temperature=0, **limit
        )
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_a_stop_string_ends_an_answer_and_is_left_out(client, model):
    request = {"model": model, "messages": STORY, "temperature": 0}
    whole = client.chat.completions.create(**request).choices[0].message.content
    for stop in ("age", 'ia","a', whole[3:9]):
        cut = client.chat.completions.create(stop=stop, **request).choices[0]
        assert cut.message.content == whole.split(stop)[0], stop
        assert cut.finish_reason == "stop"
        _, streamed = stream_of(client, stop=[stop, "never"], **request)
        assert streamed == cut.message.content


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_prompt_beyond_the_context_is_refused_with_numbers(client, model):
    long = [{"role": "user", "content": "12+45= " * 1500}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert len(re.findall(r"\d+", caught.value.message)) >= 2


def test_a_limit_that_does_not_fit_is_refused(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=QUESTION, max_tokens=5000)
    assert caught.value.code == "context_length_exceeded"
    assert "5000" in caught.value.message


@pytest.mark.parametrize(
    "wrong, param",
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_a_wrong_parameter_is_named(client, model, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=QUESTION, **wrong)
    assert caught.value.param == param


def test_every_response_has_a_request_id(client, model):
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=2
    )
    assert raw.headers["x-request-id"]


def test_a_text_part_is_text(client, model, answer):
    parts = [{"type": "text", "text": "12+45="}]
    same = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": parts}], temperature=0
    )
    assert same.choices[0].message.content == answer.choices[0].message.content


def test_several_choices_differ_and_each_has_its_receipt(client, model, url):
    request = {"model": model, "messages": STORY, "temperature": 2, "max_tokens": 12, "seed": 5}
    answer = client.chat.completions.create(n=4, **request)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1
    receipts = [choice.assay["receipt"] for choice in answer.choices]
    assert len({receipt["order"] for receipt in receipts}) == 4
    assert answer.usage.completion_tokens == sum(r["outputTokens"] for r in receipts)
    # The first is what one choice of the same seed is, and the rest repeat with it.
    assert client.chat.completions.create(**request).choices[0].message.content == texts[0]
    again = client.chat.completions.create(n=4, **request)
    assert [choice.message.content for choice in again.choices] == texts
    streamed = [""] * 4
    for chunk in client.chat.completions.create(n=4, stream=True, **request):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_a_completion_goes_on_from_its_prompt(client, model):
    first = client.completions.create(model=model, prompt="Maria is a 42 year", temperature=0)
    assert (first.object, first.id[:5]) == ("text_completion", "cmpl-")
    assert first.usage.completion_tokens <= 16
    text = first.choices[0].text
    echoed = client.completions.create(
        model=model, prompt=["Maria is a 42 year", "Oslo"], temperature=0, echo=True
    )
    assert [choice.index for choice in echoed.choices] == [0, 1]
    assert echoed.choices[0].text == "Maria is a 42 year" + text
    assert echoed.choices[1].text.startswith("Oslo")
    stream = client.completions.create(
        model=model, prompt="Maria is a 42 year", temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == text
