"""Tools and their calls, by the official Python client, with the tokens of a real model."""

import json

import pytest

WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "clock", "description": "The time.", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": CLOCK}]
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]


def named(name):
    return {"type": "function", "function": {"name": name}}


def is_weather(call):
    arguments = json.loads(call.arguments)
    assert sorted(arguments) == ["city", "unit"]
    assert len(arguments["city"]) <= 12 and arguments["unit"] in ("celsius", "fahrenheit")


def ask(client, model, **request):
    return client.chat.completions.create(
        model=model, messages=QUESTION, tools=TOOLS, temperature=0, **request
    )


def test_a_named_tool_is_called_by_its_schema(client, model):
    reply = ask(client, model, tool_choice=named("weather"))
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    call = choice.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "weather")
    assert call.id.startswith("call_")
    is_weather(call.function)


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_is_one_of_the_tools(client, model, seed):
    reply = client.chat.completions.create(
        model=model, messages=QUESTION, tools=TOOLS, seed=seed, temperature=1.5, max_tokens=400,
        tool_choice="required", parallel_tool_calls=False,
    )
    calls = reply.choices[0].message.tool_calls
    assert len(calls) == 1
    if calls[0].function.name == "weather":
        is_weather(calls[0].function)
    else:
        assert calls[0].function.name == "clock"


def test_a_stream_of_calls_is_the_same_call(client, model):
    request = {"tool_choice": named("weather"), "seed": 3}
    whole = ask(client, model, **request).choices[0].message.tool_calls[0]
    chunks = list(ask(client, model, stream=True, **request))
    deltas = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or []]
    first, rest = deltas[0], deltas[1:]
    assert (first.index, first.type, first.function.arguments) == (0, "function", "")
    assert first.function.name == "weather"
    assert all((d.index, d.id, d.function.name) == (0, None, None) for d in rest)
    # Into how many pieces they are cut is a question of speed.
    assert rest
    assert "".join(d.function.arguments for d in rest) == whole.function.arguments
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert finishes[-1] == "tool_calls" and set(finishes[:-1]) == {None}


def test_the_clients_own_stream_helper_puts_calls_together(client, model):
    with client.chat.completions.stream(
        model=model, messages=QUESTION, tools=TOOLS, tool_choice=named("clock"), temperature=0
    ) as stream:
        names = [e.name for e in stream if e.type == "tool_calls.function.arguments.done"]
    assert names == ["clock"]


def test_without_need_the_model_answers_in_words(client, model):
    reply = ask(client, model, max_tokens=20)
    choice = reply.choices[0]
    assert choice.message.tool_calls is None and choice.message.content
    # What is shown to the model is read by it, and paid for.
    plain = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=1, temperature=0
    )
    hidden = ask(client, model, max_tokens=1, tool_choice="none")
    assert reply.usage.prompt_tokens > plain.usage.prompt_tokens == hidden.usage.prompt_tokens


def test_usage_and_assurance_are_the_receipts(client, model):
    reply = ask(client, model, tool_choice="required", parallel_tool_calls=False)
    receipt, order = reply.assay["receipt"], reply.assay["order"]
    assert receipt["outputTokens"] == reply.usage.completion_tokens
    assert order["promptTokens"] == reply.usage.prompt_tokens
    assert order["assurance"] == "scored"


def test_results_are_read(client, model):
    call = ask(client, model, tool_choice=named("weather")).choices[0].message
    said = [*QUESTION, call.model_dump(exclude_none=True)]
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Rain, 7 degrees."}
    reply = client.chat.completions.create(
        model=model, messages=[*said, result], tools=TOOLS, max_tokens=20, temperature=0
    )
    assert reply.choices[0].message.content


def test_the_older_names_still_work(client, model):
    reply = client.chat.completions.create(
        model=model, messages=QUESTION, functions=[WEATHER], temperature=0,
        function_call={"name": "weather"},
    )
    choice = reply.choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call.name == "weather"
    is_weather(choice.message.function_call)


def test_responses_have_calls_as_items(client, model):
    tools = [{"type": "function", "strict": True, **WEATHER}]
    request = {"model": model, "input": "The weather in Oslo?", "tools": tools, "temperature": 0}
    reply = client.responses.create(tool_choice="required", parallel_tool_calls=False, **request)
    (call,) = reply.output
    assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
    is_weather(call)
    assert reply.assay["receipt"]["outputTokens"] == reply.usage.output_tokens
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    onward = client.responses.create(
        previous_response_id=reply.id, input=[output], max_output_tokens=16, **{
            key: request[key] for key in ("model", "tools", "temperature")
        }, tool_choice="none",
    )
    assert onward.output_text
    items = client.responses.input_items.list(onward.id).data
    assert [item.type for item in items] == ["function_call_output"]


def test_a_stream_of_a_response_tells_its_call(client, model):
    tools = [{"type": "function", **WEATHER}]
    events = list(client.responses.create(
        model=model, input="The weather in Oslo?", tools=tools, temperature=0, stream=True,
        tool_choice={"type": "function", "name": "weather"}, parallel_tool_calls=False,
    ))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert len(done) == 1 and "".join(pieces) == done[0].arguments
    assert events[-1].type == "response.completed"
    assert events[-1].response.output[0].arguments == done[0].arguments
