// The models of Black Forest Labs through the SDK, as OpenAI's own samples ask.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { client, decode, fetchImage, measure, prompt } from "./easel.mjs";

const api = client();

let answer = await api.images.generate({
  model: "black-forest-labs/flux-1-pro",
  prompt,
  n: 1,
  size: "1024x1024",
  quality: "standard",
});
assert.deepEqual(measure(await fetchImage(answer.data[0])), ["png", 1024, 1024]);
assert.equal(answer.model, "black-forest-labs/flux-1-pro");
assert.equal(answer.provider, "replicate");
assert.equal(answer.usage.cost, 0.055);

answer = await api.images.generate({ model: "flux-1-schnell", prompt, n: 6, response_format: "b64_json" });
assert.deepEqual(
  answer.data.map((image) => measure(decode(image))),
  Array(6).fill(["png", 1024, 1024]),
);
assert.equal(answer.usage.cost, 0.018);

for (const behaviour of ["NSFW", "E005", "EMPTY"]) {
  const request = { model: "flux-1-schnell", prompt: `[fake:${behaviour}] ${prompt}` };
  await assert.rejects(api.images.generate(request), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, "moderation_blocked");
    return true;
  });
}
