// Streams through the Node client, read as OpenAI's own samples read them.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { client, keys, measure, png, prompt } from "./easel.mjs";

const api = client();

async function collect(stream) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
  }
  return events;
}

/** The events of a picture with so many partials. */
function check(events, partials, { kind = "image_generation", size = ["png", 1536, 1024] } = {}) {
  assert.deepEqual(
    events.map((event) => event.type),
    [...Array(partials).fill(`${kind}.partial_image`), `${kind}.completed`],
  );
  const pictures = events.map((event) => Buffer.from(event.b64_json, "base64"));
  assert.deepEqual(pictures.map(measure), Array(events.length).fill(size));
  assert.equal(new Set(pictures.map((bytes) => bytes.toString("base64"))).size, events.length);
  for (const event of events) {
    assert.ok(event.created_at > 1_700_000_000);
    assert.equal(event.output_format, "png");
    assert.ok(event.size && event.quality && event.background);
  }
  events.slice(0, partials).forEach((event, index) => assert.equal(event.partial_image_index, index));
  const { usage } = events.at(-1);
  assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
  assert.ok(usage.cost > 0);
  return usage;
}

// OpenAI's sample, with 0 to 3 partials.
for (const partial_images of [0, 1, 2, 3]) {
  const stream = await api.images.generate({ model: "gpt-image-1", prompt, stream: true, partial_images });
  const usage = check(await collect(stream), partial_images);
  assert.equal(usage.output_tokens, 6208 + 100 * partial_images);
}

// Headers beside the events.
const { data, response } = await api.images.generate({ model: "gpt-image-2", prompt, stream: true }).withResponse();
assert.match(response.headers.get("content-type"), /^text\/event-stream/);
assert.match(response.headers.get("x-generation-id"), /^gen_/);
check(await collect(data), 0);

// A partial is there long before the picture.
const begun = performance.now();
const arrived = [];
for await (const _ of await api.images.generate({
  model: "gpt-image-1", prompt: `${prompt} [fake:slow_events]`, stream: true, partial_images: 3,
})) {
  arrived.push(performance.now() - begun);
}
assert.ok(arrived.length === 4 && arrived[0] < arrived[3] - 300, `${arrived}`);

// An error before the first byte is plain HTTP, and one behind a partial comes through the stream.
await assert.rejects(
  api.images.generate({ model: "gpt-image-1", prompt: `${prompt} [fake:moderation_gpt]`, stream: true }),
  (error) => error instanceof OpenAI.BadRequestError && error.code === "moderation_blocked",
);
const seen = [];
await assert.rejects(
  (async () => {
    for await (const event of await api.images.generate({
      model: "gpt-image-1", prompt: `${prompt} [fake:refused_after_a_draft]`, stream: true, partial_images: 2,
    })) {
      seen.push(event.type);
    }
  })(),
  (error) => error instanceof OpenAI.APIError && error.code === "moderation_blocked",
);
assert.deepEqual(seen, ["image_generation.partial_image"]);

// Edits stream alike.
for (const partial_images of [0, 2]) {
  const image = await toFile(png(64, 64), "otter.png", { type: "image/png" });
  const stream = await api.images.edit({ model: "gpt-image-1", image, prompt, size: "1024x1024", stream: true, partial_images });
  const usage = check(await collect(stream), partial_images, { kind: "image_edit", size: ["png", 1024, 1024] });
  assert.ok(usage.input_tokens_details.image_tokens > 0);
}

// A test key streams as well.
const events = await collect(await client(keys.test).images.generate({ model: "gpt-image-1", prompt, stream: true, partial_images: 1 }));
assert.equal(events.at(-1).type, "image_generation.completed");
