// Edits through the Node client: every way to hand over a picture.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import OpenAI, { toFile } from "openai";
import { client, decode, fetchImage, keys, measure, png, prompt } from "./easel.mjs";

const api = client();
const square = png(64, 64);
const wide = png(96, 64, { colour: [20, 120, 200] });
const mask = png(64, 64, { alpha: 0 });
const named = (bytes, name = "otter.png") => toFile(bytes, name, { type: "image/png" });

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "easel-"));
const file = path.join(directory, "otter.png");
fs.writeFileSync(file, square);
try {
  const ways = {
    "a stream of a file": fs.createReadStream(file),
    "a buffer with a name and a type": await named(square),
    // Without a type the SDK sends application/octet-stream.
    "a buffer with a name": await toFile(square, "otter.png"),
    "a buffer": await toFile(square),
    "a File": new File([square], "otter.png", { type: "image/png" }),
    "a list of one": [fs.createReadStream(file)],
    "a list": [fs.createReadStream(file), await named(wide), await toFile(square)],
  };
  for (const [name, image] of Object.entries(ways)) {
    const answer = await api.images.edit({ model: "gpt-image-1", image, prompt, size: "1024x1024" });
    assert.deepEqual(measure(decode(answer.data[0])), ["png", 1024, 1024], name);
    assert.equal(answer.provider, "openai");
    assert.ok(answer.usage.input_tokens_details.image_tokens > 0, name);
  }
} finally {
  fs.rmSync(directory, { recursive: true });
}

// With a mask and every parameter that edits have.
let answer = await api.images.edit({
  model: "gpt-image-1", image: await named(square), mask: await named(mask, "mask.png"), prompt, n: 2, size: "1536x1024",
  quality: "low", background: "opaque", output_format: "webp", output_compression: 60, input_fidelity: "high", user: "reader-7",
  stream: false,
});
assert.deepEqual(answer.data.map(decode).map(measure), [["webp"], ["webp"]]);
assert.equal(answer.size, "1536x1024");

// dall-e-2: one square PNG, links or base64; and variations, which only it has.
answer = await api.images.edit({ model: "dall-e-2", image: await named(square), prompt, size: "256x256" });
assert.deepEqual(measure(await fetchImage(answer.data[0])), ["png", 256, 256]);
answer = await api.images.createVariation({
  model: "dall-e-2", image: await named(square), n: 2, size: "256x256", response_format: "b64_json",
});
assert.deepEqual(answer.data.map(decode).map(measure), Array(2).fill(["png", 256, 256]));

// What is wrong is said by name before anybody is asked.
for (const [param, more] of [
  ["input_fidelity", { model: "gpt-image-2", input_fidelity: "high" }],
  ["mask", { model: "gpt-image-1", mask: await named(png(32, 32, { alpha: 0 })) }],
  ["image", { model: "dall-e-2", image: await named(wide) }],
]) {
  await assert.rejects(
    api.images.edit({ image: await named(square), prompt, ...more }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === param,
    param,
  );
}

// A test key edits for nothing.
answer = await client(keys.test).images.edit({ model: "gpt-image-1", image: await named(square), prompt });
assert.equal(answer.provider, "sandbox");
