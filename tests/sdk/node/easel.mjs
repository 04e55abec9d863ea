// What the scripts share: clients, and a look at pictures without any library.

import assert from "node:assert/strict";
import { deflateSync } from "node:zlib";
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

/** A PNG of one colour; with `alpha` the left half lets through that much. */
export function png(width, height, { colour = [200, 90, 40], alpha } = {}) {
  const chunk = (name, data) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const bytes = Buffer.alloc(body.length + 8);
    bytes.writeUInt32BE(data.length, 0);
    body.copy(bytes, 4);
    bytes.writeUInt32BE(crc32(body), body.length + 4);
    return bytes;
  };
  const row = [0];
  for (let x = 0; x < width; x += 1) {
    row.push(...colour, ...(alpha === undefined ? [] : [x < width / 2 ? alpha : 255]));
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, alpha === undefined ? 2 : 6], 8);
  const pixels = deflateSync(Buffer.concat(Array(height).fill(Buffer.from(row))));
  const magic = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([magic, chunk("IHDR", head), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))]);
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) {
      crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
  }
  return ~crc >>> 0;
}
