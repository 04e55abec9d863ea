// A connection that breaks while the picture is painted, twice: the client asks again, and gets that very picture.

import assert from "node:assert/strict";
import { client, decode, keys, measure, prompt } from "./easel.mjs";

const api = client(keys.live, { maxRetries: 2 });
const order = { model: "dall-e-2", prompt, size: "256x256", response_format: "b64_json" };
const { data, response } = await api.images.generate(order).withResponse();
assert.equal(response.headers.get("idempotent-replayed"), "true");
assert.deepEqual(measure(decode(data.data[0])), ["png", 256, 256]);
assert.equal(data.usage.cost, 0.016);
