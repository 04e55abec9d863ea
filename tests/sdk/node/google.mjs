// Google's models through the Node client.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { client, decode, fetchImage, measure, prompt } from "./easel.mjs";

const api = client();

// Imagen: several pictures in one answer, as links and as base64, with the prompt that was painted.
let answer = await api.images.generate({ model: "imagen-3", prompt, n: 2, size: "1024x1024", quality: "standard" });
assert.deepEqual((await Promise.all(answer.data.map(fetchImage))).map(measure), Array(2).fill(["png", 1024, 1024]));
assert.ok(answer.data.every((image) => image.revised_prompt));
assert.equal(answer.usage.cost, 0.08);
assert.equal(answer.provider, "google");
answer = await api.images.generate({ model: "imagen-3", prompt, size: "1792x1024", output_format: "jpeg", response_format: "b64_json" });
assert.deepEqual(measure(decode(answer.data[0])), ["jpeg"]);

// What it does not take is refused by name.
for (const refused of [{ quality: "hd" }, { style: "vivid" }, { size: "1536x1024" }]) {
  await assert.rejects(api.images.generate({ model: "imagen-3", prompt, ...refused }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, Object.keys(refused)[0]);
    return true;
  });
}

// Gemini: one picture or several, priced by the tokens that it reports, thinking among them.
answer = await api.images.generate({ model: "gemini-nano-banana-2.1", prompt, size: "1536x1024" });
assert.deepEqual(measure(await fetchImage(answer.data[0])), ["jpeg"]);
const { input_tokens, output_tokens, cost } = answer.usage;
assert.ok(output_tokens > 1120);
assert.ok(Math.abs(cost - (input_tokens * 1.5e-6 + (output_tokens - 1120) * 7.5e-6 + 1120 * 30e-6)) < 1e-9);
answer = await api.images.generate({ model: "gemini-nano-banana-2.1", prompt, n: 3, response_format: "b64_json", user: "reader-7" });
assert.deepEqual(answer.data.map(decode).map(measure), Array(3).fill(["jpeg"]));

// A draft in the answer is not delivered; a refusal inside of a success is an error to the client.
answer = await api.images.generate({ model: "gemini-nano-banana-2.1", prompt: `${prompt} [fake:THOUGHT]` });
assert.equal(answer.data.length, 1);
for (const [model, word] of [
  ["gemini-nano-banana-2.1", "IMAGE_SAFETY"],
  ["gemini-nano-banana-2.1", "BLOCKED_PROMPT"],
  ["imagen-3", "RAI_ALL"],
]) {
  await assert.rejects(api.images.generate({ model, prompt: `${prompt} [fake:${word}]` }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, "moderation_blocked");
    return true;
  });
}

// An edit: pictures go along with the prompt, and what they count as is charged.
const model = "gemini-nano-banana-2.1";
const picture = await fetchImage(answer.data[0]);
const file = (name) => toFile(picture, name, { type: "image/jpeg" });
const edited = await api.images.edit({ model, prompt, image: [await file("a.jpg"), await file("b.jpg")], response_format: "b64_json" });
assert.deepEqual(measure(decode(edited.data[0])), ["jpeg"]);
assert.equal(edited.usage.input_tokens_details.image_tokens, 2 * 1120);
await assert.rejects(api.images.edit({ model, prompt, image: await file("a.jpg"), mask: await file("b.jpg") }), (error) => {
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.equal(error.param, "mask");
  return true;
});
