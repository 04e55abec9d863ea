// What the scripts share: clients, and a look at pictures without any library.

import assert from "node:assert/strict";
import OpenAI from "openai";

const { EASEL_BASE_URL, EASEL_KEY, EASEL_TEST_KEY, EASEL_POOR_KEY, EASEL_BOUND_KEY, EASEL_LIMITED_KEY } = process.env;
export const keys = {
  live: EASEL_KEY,
  test: EASEL_TEST_KEY,
  poor: EASEL_POOR_KEY,
  bound: EASEL_BOUND_KEY,
  limited: EASEL_LIMITED_KEY,
};
export const baseURL = EASEL_BASE_URL;
export const prompt = "a violin maker's window at dusk";

export function client(apiKey = keys.live, options = {}) {
  return new OpenAI({ baseURL, apiKey, maxRetries: 0, ...options });
}

/** [format, width, height] of a PNG, [format] of a JPEG or WebP. */
export function measure(bytes) {
  if (bytes.subarray(1, 4).toString() === "PNG") {
    assert.equal(bytes.subarray(-8, -4).toString(), "IEND", "the PNG is whole");
    return ["png", bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  }
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    assert.equal(bytes.readUInt16BE(bytes.length - 2), 0xffd9, "the JPEG is whole");
    return ["jpeg"];
  }
  if (bytes.subarray(8, 12).toString() === "WEBP") {
    assert.equal(bytes.readUInt32LE(4) + 8, bytes.length, "the WebP is whole");
    return ["webp"];
  }
  assert.fail(`no picture: ${bytes.subarray(0, 16).toString("hex")}`);
}

export function decode(image) {
  assert.ok(!("url" in image), "base64 and a link");
  return Buffer.from(image.b64_json, "base64");
}

export async function fetchImage(image) {
  assert.ok(!("b64_json" in image), "a link and base64");
  const response = await fetch(image.url);
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^image\//);
  return Buffer.from(await response.arrayBuffer());
}
