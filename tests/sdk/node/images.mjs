// Pictures through the Node client: every family, every parameter.

import assert from "node:assert/strict";
import { client, decode, fetchImage, keys, measure, prompt } from "./easel.mjs";

const api = client();

// dall-e-2: four links, each to another picture.
let answer = await api.images.generate({ model: "dall-e-2", prompt, n: 4, size: "256x256" });
const files = await Promise.all(answer.data.map(fetchImage));
assert.deepEqual(files.map(measure), Array(4).fill(["png", 256, 256]));
assert.equal(new Set(files.map((file) => file.toString("base64"))).size, 4);
assert.equal(answer.usage.cost, 0.064);
assert.equal(answer.provider, "openai");
assert.match(answer._request_id, /^req_/);

// The same as base64.
answer = await api.images.generate({ model: "dall-e-2", prompt, n: 4, size: "512x512", response_format: "b64_json", user: "reader-7" });
assert.deepEqual(answer.data.map(decode).map(measure), Array(4).fill(["png", 512, 512]));

// dall-e-3 in hd with a style, both ways.
for (const response_format of ["url", "b64_json"]) {
  answer = await api.images.generate({
    model: "dall-e-3", prompt, n: 1, quality: "hd", style: "natural", size: "1024x1792", response_format, user: "reader-7",
  });
  const bytes = response_format === "url" ? await fetchImage(answer.data[0]) : decode(answer.data[0]);
  assert.deepEqual(measure(bytes), ["png", 1024, 1792]);
  assert.ok(answer.data[0].revised_prompt);
  assert.equal(answer.usage.cost, 0.12);
}

// gpt-image-1 with every parameter it has.
answer = await api.images.generate({
  model: "gpt-image-1", prompt, n: 2, size: "1536x1024", quality: "medium", background: "opaque", output_format: "webp",
  output_compression: 70, moderation: "low", user: "reader-7", stream: false,
});
assert.deepEqual(answer.data.map(decode).map(measure), [["webp"], ["webp"]]);
assert.equal(answer.size, "1536x1024");
assert.equal(answer.quality, "medium");
assert.equal(answer.usage.output_tokens, 2 * 1568);
assert.equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens);

// gpt-image-2 with every parameter it has, a free size and transparency among them.
answer = await api.images.generate({
  model: "gpt-image-2", prompt, n: 1, size: "1280x720", quality: "low", background: "transparent", output_format: "png",
  moderation: "auto", safety_identifier: "reader-7",
});
assert.deepEqual(measure(decode(answer.data[0])), ["png", 1280, 720]);
assert.equal(answer.background, "transparent");

// What only the gateway knows; explicit nulls; no model.
answer = await api.images.generate({ model: "openai/dall-e-2", prompt, size: "256x256", provider: { only: ["openai"] } });
assert.equal(answer.provider, "openai");
answer = await api.images.generate({ prompt, n: null, size: null, quality: null, response_format: null });
assert.equal(answer.model, "openai/dall-e-2");

// Headers beside the data.
const { data, response, request_id } = await api.images.generate({ model: "dall-e-2", prompt, size: "256x256" }).withResponse();
assert.equal(response.headers.get("content-type"), "application/json");
assert.equal(request_id, data._request_id);
assert.match(response.headers.get("x-generation-id"), /^gen_/);

// Many at the same time.
const answers = await Promise.all(
  Array.from({ length: 12 }, () => api.images.generate({ model: "dall-e-2", prompt, size: "256x256", response_format: "b64_json" })),
);
assert.equal(new Set(answers.map((each) => each._request_id)).size, 12);

// A test key paints the same for nothing.
answer = await client(keys.test).images.generate({ model: "dall-e-3", prompt });
assert.equal(answer.provider, "sandbox");
assert.deepEqual(measure(await fetchImage(answer.data[0])), ["png", 1024, 1024]);
