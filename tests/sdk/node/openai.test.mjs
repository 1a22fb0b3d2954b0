// The official Node client, used as its documentation shows, against the gateway.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import OpenAI from "openai";

const url = process.env.ASSAY_URL;
assert.ok(url, "ASSAY_URL is not set; `cargo xtask sdk` starts a network and sets it");

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const question = [{ role: "user", content: "12+45=" }];
const story = [{ role: "user", content: "Extract JSON: Maria is a 42 year old baker from Oslo." }];
let model;

before(async () => {
  model = (await client.models.list()).data[0].id;
});

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
}

test("models are listed and found", async () => {
  const found = await client.models.retrieve(model);
  assert.equal(found.id, model);
  assert.equal(found.object, "model");
});

test("the model answers, and the answer carries its receipt", async () => {
  const answer = await client.chat.completions.create({ model, messages: question, temperature: 0 });
  assert.equal(answer.choices[0].message.content, "57");
  assert.equal(answer.choices[0].finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert.equal(prompt_tokens + completion_tokens, total_tokens);
  assert.equal(answer.assay.text, "57");

  const stored = await (await fetch(`${url}/v1/receipts/${answer.id}`)).json();
  assert.deepEqual(stored.receipt, answer.assay.receipt);
});

for (const drawn of [{ temperature: 0 }, { temperature: 1.5, seed: 5, max_tokens: 24 }]) {
  test(`a stream says what the plain answer says: ${JSON.stringify(drawn)}`, async () => {
    const request = { model, messages: story, ...drawn };
    const plain = await client.chat.completions.create(request);
    const streamed = await textOf(await client.chat.completions.create({ ...request, stream: true }));
    assert.equal(streamed, plain.choices[0].message.content);
  });
}

test("the client's stream helper assembles the same answer", async () => {
  const runner = client.chat.completions.stream({ model, messages: question, temperature: 0 });
  const whole = await runner.finalChatCompletion();
  assert.equal(whole.choices[0].message.content, "57");
  assert.equal(whole.choices[0].finish_reason, "stop");
});

test("a stream reports usage when asked", async () => {
  const stream = await client.chat.completions.create({
    model, messages: question, temperature: 0, stream: true, stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
});

test("a stop string ends an answer and is left out", async () => {
  const answer = await client.chat.completions.create({ model, messages: story, temperature: 0, stop: "age" });
  assert.equal(answer.choices[0].message.content, '{"name":"Maria","');
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("errors are the client's own", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "nobody", messages: question }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
  );
  await assert.rejects(
    client.chat.completions.create({ model, messages: question, temperature: 9 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
  );
  await assert.rejects(
    client.chat.completions.create({ model, messages: [{ role: "user", content: "1+1= ".repeat(1500) }] }),
    (error) => error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded",
  );
});

test("an aborted stream ends, and the gateway goes on", async () => {
  const stream = await client.chat.completions.create({ model, messages: story, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
  const answer = await client.chat.completions.create({ model, messages: question, temperature: 0 });
  assert.equal(answer.choices[0].message.content, "57");
});
