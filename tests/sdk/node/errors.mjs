// Every class of error as the SDK's own exception, with code, param, type and request id.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { baseURL, client, keys, prompt } from "./easel.mjs";

async function fails(exception, status, code, param, request = {}, { api = client(), type } = {}) {
  const sent = { model: "dall-e-3", prompt, ...request };
  let error;
  try {
    await api.images.generate(sent);
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, `${JSON.stringify(sent).slice(0, 200)} was served`);
  assert.ok(error instanceof exception, `${error.constructor.name}: ${error.message}`);
  assert.equal(error.status, status, error.message);
  assert.deepEqual([error.code, error.param], [code, param], error.message);
  assert.ok(error.type);
  if (type) assert.equal(error.type, type);
  assert.match(error.requestID, /^req_/);
  assert.ok(!error.message.includes(prompt));
  return error;
}

const Bad = OpenAI.BadRequestError;

// The caller's mistakes.
await fails(Bad, 400, "invalid_size", "size", { size: "1x1" });
await fails(Bad, 400, "invalid_value", "quality", { quality: "low" });
await fails(Bad, 400, "integer_above_max_value", "n", { n: 2 });
await fails(Bad, 400, "invalid_type", "n", { n: "2" });
await fails(Bad, 400, "unknown_parameter", "background", { background: "opaque" });
await fails(Bad, 400, "unknown_parameter", "seed", { seed: 1 });
await fails(Bad, 400, "string_above_max_length", "prompt", { model: "dall-e-2", prompt: "x".repeat(1001) });
await fails(Bad, 400, "missing_required_parameter", "prompt", { prompt: undefined });
await fails(Bad, 400, "no_route", "provider", { provider: { only: ["sandbox"] } });

// Keys, money, models, limits.
await fails(OpenAI.AuthenticationError, 401, "invalid_api_key", null, {}, { api: client(`ek_live_${"0".repeat(40)}`) });
await fails(OpenAI.APIError, 402, "insufficient_balance", null, {}, { api: client(keys.poor) });
await fails(OpenAI.PermissionDeniedError, 403, "model_not_allowed", "model", {}, { api: client(keys.bound) });
await fails(OpenAI.NotFoundError, 404, "model_not_found", "model", { model: "dall-e-9" });
const limited = client(keys.limited);
await limited.images.generate({ model: "dall-e-2", prompt, size: "256x256" });
const limit = await fails(OpenAI.RateLimitError, 429, "rate_limit_exceeded", null, {}, { api: limited });
assert.ok(Number(limit.headers.get("retry-after")) > 0);

// What the provider refuses.
await fails(Bad, 400, "content_policy_violation", null, { prompt: "[fake:moderation_dalle]" });
await fails(Bad, 400, "moderation_blocked", null, { model: "gpt-image-1", prompt: "[fake:moderation_gpt]" }, { type: "image_generation_user_error" });

// What the provider does to us. The SDK would repeat these by itself; the gateway says not to.
for (const [name, status, code] of [
  ["server_error", 502, "upstream_error"],
  ["html", 502, "upstream_error"],
  ["insufficient_quota", 502, "upstream_error"],
  ["not_a_picture", 502, "upstream_error"],
  ["never", 504, "upstream_timeout"],
]) {
  const begun = performance.now();
  const error = await fails(OpenAI.InternalServerError, status, code, null, { prompt: `[fake:${name}]` }, { api: client(keys.live, { maxRetries: 2 }) });
  assert.equal(error.headers.get("x-should-retry"), "false", name);
  assert.ok(performance.now() - begun < 12_000, `${name} was repeated`);
}
const busy = await fails(OpenAI.RateLimitError, 429, "upstream_rate_limited", null, { prompt: "[fake:rate_limited]" });
assert.equal(busy.headers.get("retry-after"), "1");

// A wrong path below the base URL.
await assert.rejects(
  client(keys.live, { baseURL: baseURL.replace(/\/v1$/, "") }).images.generate({ model: "dall-e-2", prompt }),
  OpenAI.NotFoundError,
);
