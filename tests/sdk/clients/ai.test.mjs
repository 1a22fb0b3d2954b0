// The AI SDK, used as its documentation shows, against the gateway.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const url = process.env.ASSAY_URL;
assert.ok(url, "ASSAY_URL is not set; `cargo xtask clients` starts a network and sets it");

const assay = createOpenAICompatible({
  name: "assay",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = assay("nano");
const prompt = "12+45=";
const weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string().max(12), unit: z.enum(["c", "f"]) }),
});

test("text is made, with its usage", async () => {
  const { text, usage, finishReason } = await generateText({ model, prompt, temperature: 0 });
  assert.equal(text, "57");
  assert.equal(finishReason, "stop");
  assert.equal(usage.inputTokens + usage.outputTokens, usage.totalTokens);
});

test("text is streamed to its end", async () => {
  const result = streamText({ model, prompt, temperature: 0 });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.equal(text, "57");
  assert.equal(await result.finishReason, "stop");
  assert.ok((await result.usage).outputTokens > 0);
});

const call = {
  model,
  prompt: "What is the weather in Oslo?",
  tools: { weather },
  toolChoice: { type: "tool", toolName: "weather" },
  temperature: 0,
};

test("a tool is called", async () => {
  const { toolCalls, finishReason } = await generateText(call);
  assert.equal(finishReason, "tool-calls");
  assert.equal(toolCalls.length, 1);
  assert.equal(toolCalls[0].toolName, "weather");
  assert.ok(["c", "f"].includes(toolCalls[0].input.unit));
});

test("a call is streamed", async () => {
  const result = streamText(call);
  const kinds = [];
  for await (const part of result.fullStream) kinds.push(part.type);
  for (const kind of ["tool-input-start", "tool-input-delta", "tool-input-end", "tool-call"]) {
    assert.ok(kinds.includes(kind), kind);
  }
  const [made] = await result.toolCalls;
  assert.ok(made.input.city.length <= 12);
});

test("a tool's result is told to the model", async () => {
  const answered = tool({ ...weather, execute: async () => "Rain." });
  const steps = (await generateText({
    ...call,
    tools: { weather: answered },
    maxOutputTokens: 100,
    stopWhen: ({ steps }) => steps.length === 2,
  })).steps;
  assert.equal(steps[0].toolResults[0].output, "Rain.");
  assert.equal(steps.length, 2);
});

const schema = z.object({ name: z.string().max(20), age: z.number().int().min(0).max(150) });
const story = { model, schema, prompt: "Extract JSON: Maria is a 42 year old baker from Oslo.", temperature: 0 };

test("an object is made by its schema", async () => {
  const { object } = await generateObject(story);
  assert.deepEqual(Object.keys(object).sort(), ["age", "name"]);
});

test("an object is streamed", async () => {
  const result = streamObject(story);
  let last;
  for await (const partial of result.partialObjectStream) last = partial;
  assert.deepEqual(last, await result.object);
});
