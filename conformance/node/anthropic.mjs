// Anthropic's SDK for JavaScript.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { CITY, TO_TEN, refused, run, target } from "./checks.mjs";

const client = new Anthropic({ baseURL: target.url, apiKey: "any", maxRetries: 0 });
const model = target.model;
const messages = [{ role: "user", content: "Count to ten." }];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const fixed = { model, max_tokens: 64, temperature: 0 };

await run({
  "a message": async () => {
    const answer = await client.messages.create({ ...fixed, messages });
    assert.equal(answer.content[0].text, TO_TEN);
    assert.match(answer.id, /^msg_/);
    assert.ok(answer._request_id);
  },
  "a stream": async () => {
    const stream = client.messages.stream({ ...fixed, messages });
    assert.equal(await stream.finalText(), TO_TEN);
  },
  "a tool": async () => {
    const tools = [{ name: "get_weather", input_schema: CITY }];
    const answer = await client.messages.create({ ...fixed, messages: asked, tools });
    assert.deepEqual(answer.content.at(-1).input, { city: "Paris" });
    assert.match(answer.content.at(-1).id, /^toolu_/);
  },
  "counting tokens": async () => {
    const counted = await client.messages.countTokens({ model, messages });
    assert.ok(counted.input_tokens > 0);
  },
  "models": async () => {
    const cards = [];
    for await (const card of client.models.list({ limit: 1 })) cards.push(card);
    assert.ok(cards.length > 1);
    assert.ok(cards.every((card) => card.display_name && card.created_at));
  },
  "an unknown model": async () => {
    const error = await refused(
      client.messages.create({ ...fixed, model: "nope", messages }), { status: 404 },
    );
    assert.equal(error.error.error.type, "not_found_error");
    assert.ok(error.requestID);
  },
});
