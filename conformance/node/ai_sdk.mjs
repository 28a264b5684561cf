// Vercel's AI SDK: its provider for servers like OpenAI's, and OpenAI's own with both of its APIs.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  embed, embedMany, generateObject, generateText, jsonSchema, stepCountIs,
  streamText, tool,
} from "ai";
import { CITY, TO_TEN, run, target } from "./checks.mjs";

const settings = { baseURL: target.baseURL, apiKey: "any" };
const compatible = createOpenAICompatible({
  name: "gateway", supportsStructuredOutputs: true, includeUsage: true, ...settings,
});
const openai = createOpenAI(settings);
const kind = jsonSchema({
  type: "object",
  properties: { kind: { type: "string", enum: ["model"] } },
  required: ["kind"],
  additionalProperties: false,
});

function getWeather(cities) {
  return tool({
    description: "Get the current weather in a city.",
    inputSchema: jsonSchema(CITY),
    execute: async ({ city }) => {
      cities.push(city);
      return { city, temperature: 18, sky: "sunny" };
    },
  });
}

function checksOf(model, unknown) {
  const fixed = { model, temperature: 0, maxRetries: 0, maxOutputTokens: 128 };
  const weather = { ...fixed, prompt: "What is the weather in Paris?" };
  return {
    "generateText": async () => {
      const { text, finishReason } = await generateText({ ...fixed, prompt: "Count to ten." });
      assert.equal(text, TO_TEN);
      assert.equal(finishReason, "stop");
    },
    "usage": async () => {
      const { usage } = await generateText({ ...fixed, prompt: "Count to ten." });
      assert.ok(usage.inputTokens > 0 && usage.outputTokens > 10);
    },
    "streamText": async () => {
      let text = "";
      for await (const part of streamText({ ...fixed, prompt: "Count to ten." }).textStream) {
        text += part;
      }
      assert.equal(text, TO_TEN);
    },
    "usage of a stream": async () => {
      const result = streamText({ ...fixed, prompt: "Count to ten." });
      await result.consumeStream();
      assert.ok((await result.usage).outputTokens > 10);
    },
    "a system prompt and turns": async () => {
      const { text } = await generateText({
        ...fixed,
        system: "You are a helpful assistant.",
        messages: [
          { role: "user", content: "Knock knock." },
          { role: "assistant", content: "Who is there?" },
          { role: "user", content: "Cache." },
        ],
      });
      assert.equal(text, "Cache who?");
    },
    "a tool": async () => {
      const cities = [];
      await generateText({ ...weather, tools: { get_weather: getWeather(cities) } });
      assert.deepEqual(cities, ["Paris"]);
    },
    "a tool in a stream": async () => {
      const cities = [];
      const result = streamText({ ...weather, tools: { get_weather: getWeather(cities) } });
      await result.consumeStream();
      assert.deepEqual(cities, ["Paris"]);
    },
    "a tool's result": async () => {
      const tools = { get_weather: getWeather([]) };
      const { text } = await generateText({ ...weather, tools, stopWhen: stepCountIs(3) });
      assert.match(text, /sunny/);
    },
    "a required tool": async () => {
      const tools = { get_weather: getWeather([]) };
      const { toolCalls } = await generateText({ ...weather, tools, toolChoice: "required" });
      assert.equal(toolCalls[0].toolName, "get_weather");
    },
    "generateObject": async () => {
      const { object } = await generateObject({ ...fixed, schema: kind, prompt: "Say hello." });
      assert.deepEqual(object, { kind: "model" });
    },
    "cut off": async () => {
      const { finishReason } = await generateText({
        ...fixed, prompt: "Tell me a story.", maxOutputTokens: 16,
      });
      assert.equal(finishReason, "length");
    },
    "an unknown model": async () => {
      await assert.rejects(
        generateText({ model: unknown, maxRetries: 0, prompt: "x" }),
        (error) => error.statusCode === 404,
      );
    },
  };
}

function named(prefix, checks) {
  return Object.fromEntries(Object.entries(checks).map(([n, c]) => [`${prefix}: ${n}`, c]));
}

const { model, embeddingModel } = target;
const compatibleChecks = checksOf(compatible(model), compatible("nope"));
const responsesChecks = checksOf(openai.responses(model), openai.responses("nope"));
const chatChecks = checksOf(openai.chat(model), openai.chat("nope"));

await run({
  ...named("openai-compatible", compatibleChecks),
  "openai-compatible: embed": async () => {
    const { embedding } = await embed({
      model: compatible.textEmbeddingModel(embeddingModel), value: "x",
    });
    assert.ok(embedding.length > 10);
  },
  "openai-compatible: embedMany": async () => {
    const { embeddings } = await embedMany({
      model: compatible.textEmbeddingModel(embeddingModel), values: ["x", "y"],
    });
    assert.equal(embeddings.length, 2);
  },
  ...named("openai responses", responsesChecks),
  ...named("openai chat", chatChecks),
});
