// What all suites in JavaScript share: checks by name, and their results as JSON.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

const TIMEOUT_MS = 60_000;
const WHY_CHARACTERS = 300;

const { values: given } = parseArgs({
  options: {
    url: { type: "string" },
    output: { type: "string" },
    model: { type: "string", default: "demo" },
    "embedding-model": { type: "string", default: "demo-embed" },
  },
});

export const target = {
  url: given.url,
  baseURL: `${given.url}/v1`,
  model: given.model,
  embeddingModel: given["embedding-model"],
};

export const TO_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.";
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

/** Run the checks, an object from names to functions, one after the other. */
export async function run(checks) {
  const results = [];
  for (const [name, check] of Object.entries(checks)) {
    let why = "";
    try {
      await withTimeLimit(check());
    } catch (error) {
      why = `${error?.name}: ${error?.message}`.split(/\s+/).join(" ").slice(0, WHY_CHARACTERS);
    }
    results.push({ name, passed: why ? 0 : 1, failed: why ? 1 : 0, why });
  }
  writeFileSync(given.output, JSON.stringify(results, null, 1));
  process.exit(0);
}

function withTimeLimit(promise) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error("it took too long")), TIMEOUT_MS).unref();
  });
  return Promise.race([promise, late]);
}

/** Expect an error whose fields are these. */
export async function refused(promise, fields) {
  let caught;
  try {
    await promise;
  } catch (error) {
    caught = error;
  }
  if (!caught) throw new Error("it was not refused");
  for (const [name, wanted] of Object.entries(fields)) {
    if (caught[name] !== wanted) {
      throw new Error(`${name}: ${JSON.stringify(caught[name])}, not ${wanted}: ${caught.message}`);
    }
  }
  return caught;
}
