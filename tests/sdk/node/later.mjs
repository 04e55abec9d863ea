// Pictures that are fetched later (`Prefer: respond-async`), with what the client lets one add and nothing else.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { client, decode, fetchImage, keys, measure, prompt } from "./easel.mjs";

const api = client();
const later = { headers: { Prefer: "respond-async" } };

// What the answer says at once.
const begin = (response, begun) => {
  assert.equal(response.status, 202);
  assert.equal(response.headers.get("preference-applied"), "respond-async");
  assert.deepEqual([begun.object, begun.status, begun.data], ["image.generation", "in_progress", []]);
  assert.equal(response.headers.get("x-generation-id"), begun.id);
  // The client's own paths begin behind the base address.
  const location = response.headers.get("location");
  assert.equal(location, `/v1/images/generations/${begun.id}`);
  return [location.slice("/v1".length), Number(response.headers.get("retry-after"))];
};

// What became of it, asked for as often as the server likes.
const follow = async ([place, pause], query = {}) => {
  for (;;) {
    await sleep(pause * 1000);
    const { data, response } = await api.get(place, { query }).withResponse();
    const next = response.headers.get("retry-after");
    if (data.status !== "in_progress") {
      assert.equal(next, null);
      return data;
    }
    pause = Number(next);
    assert.ok(pause >= 1 && pause <= 10, next);
  }
};

// A link, from the answer as it came.
const response = await api.images.generate({ model: "dall-e-3", prompt }, later).asResponse();
let done = await follow(begin(response, await response.json()));
assert.deepEqual([done.status, done.provider, done.cost], ["completed", "openai", 0.04]);
assert.deepEqual(measure(await fetchImage(done.data[0])), ["png", 1024, 1024]);

// Base64, from the parsed object; the header is one of all requests of this client.
const patient = client(keys.live, { defaultHeaders: later.headers });
const parsed = await patient.images.generate({ model: "gpt-image-1", prompt, quality: "low", size: "1024x1024" }).withResponse();
done = await follow(begin(parsed.response, parsed.data), { response_format: "b64_json" });
assert.equal(done.status, "completed");
assert.deepEqual(measure(decode(done.data[0])), ["png", 1024, 1024]);

// What is refused is refused at once.
await assert.rejects(
  client(keys.poor).images.generate({ model: "dall-e-3", prompt }, later),
  (error) => error.status === 402 && error.code === "insufficient_balance",
);
