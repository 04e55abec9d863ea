// The catalog through the SDK.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { client, prompt } from "./easel.mjs";

const api = client();

const models = new Map();
for await (const model of api.models.list()) models.set(model.id, model);
assert.ok(models.has("openai/dall-e-2") && models.has("openai/gpt-image-2"));
for (const model of models.values()) {
  assert.equal(model.object, "model");
  assert.ok(Number.isInteger(model.created) && model.owned_by);
}

// Ids contain slashes, which the SDK encodes.
const model = await api.models.retrieve("openai/dall-e-3");
assert.equal(model.id, "openai/dall-e-3");
assert.deepEqual(model.supported_parameters.quality.values, ["standard", "hd"]);
assert.equal(model.shutdown_date, "2026-05-12");
assert.equal((await api.models.retrieve("dall-e-3")).id, "openai/dall-e-3");

// A listed id can be used as it is.
assert.equal((await api.images.generate({ model: model.id, prompt })).model, model.id);

await assert.rejects(api.models.retrieve("nobody/nothing"), (error) => {
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.equal(error.code, "model_not_found");
  return true;
});
