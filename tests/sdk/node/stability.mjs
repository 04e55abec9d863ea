// Stable Diffusion 3 through the Node client, as one would ask DALL·E for pictures.

import assert from "node:assert/strict";
import { client, decode, fetchImage, measure, prompt } from "./easel.mjs";

const model = "stability/stable-diffusion-3-large";
const api = client();

// The sample: one picture, as a link.
let answer = await api.images.generate({ model, prompt, n: 1, size: "1024x1024" });
assert.deepEqual(measure(await fetchImage(answer.data[0])), ["png", 1024, 1024]);
assert.equal(answer.model, model);
assert.equal(answer.provider, "stability");
assert.equal(answer.usage.cost, 0.065);

// Four of them as base64, each another one.
answer = await api.images.generate({
  model, prompt, n: 4, size: "1536x1024", quality: "standard", response_format: "b64_json", user: "reader-7",
});
const files = answer.data.map(decode);
assert.deepEqual(files.map((file) => measure(file)[0]), Array(4).fill("png"));
assert.equal(new Set(files.map((file) => file.toString("base64"))).size, 4);
assert.equal(answer.usage.cost, 0.26);

// A size that it cannot paint is refused with those that it can.
await assert.rejects(api.images.generate({ model, prompt, size: "512x512" }), (error) => {
  assert.equal(error.status, 400);
  assert.equal(error.param, "size");
  assert.match(error.message, /16:9/);
  return true;
});

// Refused before painting, and after it.
for (const word of ["MODERATE", "BLUR"]) {
  await assert.rejects(api.images.generate({ model, prompt: `${prompt} ${word}` }), (error) => {
    assert.equal(error.status, 400);
    assert.equal(error.code, "moderation_blocked");
    return true;
  });
}
