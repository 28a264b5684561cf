// OpenAI's SDK for JavaScript.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { CITY, TO_TEN, refused, run, target } from "./checks.mjs";

const client = new OpenAI({ baseURL: target.baseURL, apiKey: "any", maxRetries: 0 });
const model = target.model;
const count = [{ role: "user", content: "Count to ten." }];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const tool = { type: "function", function: { name: "get_weather", parameters: CITY } };
const kind = {
  type: "object",
  properties: { kind: { type: "string", enum: ["model"] } },
  required: ["kind"],
  additionalProperties: false,
};
const long = "word ".repeat(40_000);
const fixed = { model, temperature: 0 };

await run({
  "chat": async () => {
    const answer = await client.chat.completions.create({ ...fixed, messages: count });
    assert.equal(answer.choices[0].message.content, TO_TEN);
    assert.ok(answer._request_id);
  },
  "chat stream": async () => {
    const stream = await client.chat.completions.create({ ...fixed, messages: count, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
    assert.equal(text, TO_TEN);
  },
  "chat stream helper": async () => {
    const stream = client.chat.completions.stream({ ...fixed, messages: count });
    assert.equal(await stream.finalContent(), TO_TEN);
  },
  "chat stream with usage": async () => {
    const stream = await client.chat.completions.create({
      ...fixed, messages: count, stream: true, stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.ok(chunks.at(-1).usage.total_tokens);
    assert.equal(chunks[0].usage, null);
  },
  "chat with a tool": async () => {
    const answer = await client.chat.completions.create({ ...fixed, messages: asked, tools: [tool] });
    const [call] = answer.choices[0].message.tool_calls;
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  },
  "runTools": async () => {
    const cities = [];
    const runner = client.chat.completions.runTools({
      ...fixed, messages: asked,
      tools: [{ type: "function", function: {
        name: "get_weather", parameters: CITY, parse: JSON.parse,
        function: ({ city }) => {
          cities.push(city);
          return '{"city": "Paris", "temperature": 18, "sky": "sunny"}';
        },
      } }],
    });
    assert.match(await runner.finalContent(), /sunny/);
    assert.deepEqual(cities, ["Paris"]);
  },
  "chat with a JSON schema": async () => {
    const answer = await client.chat.completions.parse({
      ...fixed, messages: [{ role: "user", content: "Say hello." }], max_tokens: 64,
      response_format: { type: "json_schema", json_schema: { name: "kind", strict: true, schema: kind } },
    });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { kind: "model" });
  },
  "completions": async () => {
    const answer = await client.completions.create({ ...fixed, prompt: "The capital of France is" });
    assert.equal(answer.choices[0].text, " Paris.");
  },
  "embeddings": async () => {
    const told = await client.embeddings.create({ model: target.embeddingModel, input: "x" });
    assert.equal(typeof told.data[0].embedding[0], "number");
  },
  "responses": async () => {
    const answer = await client.responses.create({ ...fixed, input: "Count to ten." });
    assert.equal(answer.output_text, TO_TEN);
  },
  "responses stream": async () => {
    const stream = await client.responses.create({ ...fixed, input: "Count to ten.", stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    assert.equal(events.at(-1).type, "response.completed");
  },
  "responses stream helper": async () => {
    const stream = client.responses.stream({ ...fixed, input: "Count to ten." });
    assert.equal((await stream.finalResponse()).output_text, TO_TEN);
  },
  "responses stream cut off": async () => {
    const stream = await client.responses.create({
      model, input: "Tell me a story.", stream: true, max_output_tokens: 16,
    });
    let last;
    for await (const event of stream) last = event;
    assert.equal(last.type, "response.incomplete");
  },
  "responses previous": async () => {
    await refused(
      client.responses.create({ model, input: "x", previous_response_id: "resp_x" }),
      { status: 400, code: "previous_response_not_found" },
    );
  },
  "models": async () => {
    const ids = [];
    for await (const each of client.models.list()) ids.push(each.id);
    assert.ok(ids.includes(model));
  },
  "an unknown model": async () => {
    await refused(
      client.chat.completions.create({ model: "nope", messages: count }),
      { status: 404, code: "model_not_found", type: "invalid_request_error" },
    );
  },
  "too long a prompt": async () => {
    await refused(
      client.chat.completions.create({ model, messages: [{ role: "user", content: long }] }),
      { status: 400, code: "context_length_exceeded", param: "messages" },
    );
  },
  "files": async () => {
    const page = await client.files.list();
    assert.ok(Array.isArray(page.data));
  },
});
