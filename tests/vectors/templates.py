"""What Python says of chat templates: conversations, and their renderings as transformers makes them.

Usage: templates.py FOLDER [SECONDS]. Reads every *.jinja in FOLDER and prints one JSON object per line:
the case as crates/text/examples/render.rs reads it, with "name" and "what", and with "expected", the
rendering, or "fails", the reason why Python has none.

transformers renders by an ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls,
the tag "generation", and its own tojson, raise_exception and strftime_now. Two things differ here, as
they must in a server. The time is fixed. Variables without a value are undefined rather than None.
And where a list may not be changed in that sandbox, the plain sandbox renders ("mutable": true).
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 1_767_323_045
BOS, EOS = "<|first|>", "<|last|>"

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather in a city, \"now\" & <here>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Zürich, for example"},
                    "unit": {"type": "string", "description": "", "enum": ["C", "F"], "default": "C"},
                    "days": {"type": "integer", "description": "How many", "minimum": 1},
                    "near": {"type": "array", "description": "It's [lat, lon]", "items": {"type": "number"}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "noop",
            "description": "Does nothing.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]

# Ids of nine letters and digits: one family takes no others.
CALLS = [
    ("abc123def", "get_weather", {"city": "Zürich", "days": 2, "near": [1.5, -0.25], "wet": True, "x": None}),
    ("ghi456jkl", "noop", {}),
]


def calling(content, calls):
    """An assistant's turn with calls."""
    called = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": called}


def result(call, content):
    return {"role": "tool", "content": content, "tool_call_id": call[0], "name": call[1]}


PLAIN = [{"role": "user", "content": "What is 1 < 2 & 'why'?"}]
SYSTEM = [{"role": "system", "content": "You are brief.\n"}, {"role": "user", "content": " Hello, wörld! "}]
TURNS = [
    {"role": "user", "content": "Say a\nb."},
    {"role": "assistant", "content": "a\nb."},
    {"role": "user", "content": "And \"c\"?"},
    {"role": "assistant", "content": "  c  "},
    {"role": "user", "content": "Done?"},
]
TOOLED = [
    {"role": "system", "content": "Use tools."},
    {"role": "user", "content": "Weather in Zürich?"},
    calling("", CALLS[:1]),
    result(CALLS[0], '{"sky": "grey"}'),
]
CALLED = [
    {"role": "user", "content": "Weather?"},
    calling("Let me <see>.", CALLS),
    result(CALLS[0], "grey\n\"sky\""),
    result(CALLS[1], ""),
    {"role": "assistant", "content": "It is grey."},
    {"role": "user", "content": "Thanks!"},
]

CASES = [
    ("plain", PLAIN, None),
    ("system", SYSTEM, None),
    ("turns", TURNS, None),
    ("tools", TOOLED, TOOLS),
    ("calls", CALLED, TOOLS),
    ("offer", TURNS, TOOLS),
]


class Generation(Extension):
    """The tag around an assistant's words: it renders as what it holds."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_words")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    def _words(self, caller):
        return caller()


class Refused(Exception):
    """The template said no."""


def raise_exception(message):
    raise Refused(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.fromtimestamp(SECONDS, timezone.utc).strftime(format)


def environment(sandbox):
    made = sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


def with_text(messages):
    """The messages with the arguments of calls as JSON text."""
    changed = json.loads(json.dumps(messages))
    for message in changed:
        for call in message.get("tool_calls", []):
            arguments = call["function"]["arguments"]
            if not isinstance(arguments, str):
                call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return changed


def rendered(template, messages, tools):
    given = {"tools": tools} if tools else {}
    return template.render(
        messages=messages, add_generation_prompt=True, bos_token=BOS, eos_token=EOS, **given
    )


def outcome(source, messages, tools, sandbox=ImmutableSandboxedEnvironment):
    try:
        template = environment(sandbox).from_string(source)
    except jinja2.TemplateError as error:
        return {"fails": f"does not parse: {error}"}
    try:
        return {"expected": rendered(template, messages, tools)}
    except Refused as error:
        return {"fails": str(error), "refused": True}
    except jinja2.sandbox.SecurityError as error:
        if sandbox is ImmutableSandboxedEnvironment:
            return outcome(source, messages, tools, SandboxedEnvironment) | {"mutable": True}
        return {"fails": str(error)}
    except Exception as error:
        text = with_text(messages)
        if text != messages:
            return outcome(source, text, tools, sandbox) | {"text": True}
        return {"fails": f"{type(error).__name__}: {error}"}


def main():
    for path in sorted(Path(sys.argv[1]).glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for what, messages, tools in CASES:
            case = {
                "name": path.stem,
                "what": what,
                "template": source,
                "messages": with_text(messages),
                "tools": tools,
                "bos_token": BOS,
                "eos_token": EOS,
                "unix_seconds": SECONDS,
            }
            print(json.dumps(case | outcome(source, messages, tools), ensure_ascii=False))


main()
