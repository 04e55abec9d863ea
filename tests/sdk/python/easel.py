"""What the scripts share: clients, and a look at pictures without any library."""

import base64
import os
import struct
import urllib.request
import zlib

import openai

BASE_URL = os.environ["EASEL_BASE_URL"]
KEY = os.environ["EASEL_KEY"]
TEST_KEY = os.environ["EASEL_TEST_KEY"]
POOR_KEY = os.environ["EASEL_POOR_KEY"]
BOUND_KEY = os.environ["EASEL_BOUND_KEY"]
LIMITED_KEY = os.environ["EASEL_LIMITED_KEY"]

PROMPT = "a violin maker's window at dusk"


def client(key=KEY, **options):
    options.setdefault("max_retries", 0)
    return openai.OpenAI(base_url=BASE_URL, api_key=key, **options)


def async_client(key=KEY, **options):
    options.setdefault("max_retries", 0)
    return openai.AsyncOpenAI(base_url=BASE_URL, api_key=key, **options)


def measure(data):
    """(format, width, height) of a PNG, or (format, None, None) of a JPEG or WebP."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        assert data[-8:-4] == b"IEND", "the PNG is whole"
        return ("png", *struct.unpack(">II", data[16:24]))
    if data[:3] == b"\xff\xd8\xff":
        assert data[-2:] == b"\xff\xd9", "the JPEG is whole"
        return ("jpeg", None, None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        assert struct.unpack("<I", data[4:8])[0] + 8 == len(data), "the WebP is whole"
        return ("webp", None, None)
    raise AssertionError(f"no picture: {data[:16]!r}")


def decode(image):
    assert image.url is None, "base64 and a link"
    return base64.b64decode(image.b64_json, validate=True)


def fetch(image):
    assert image.b64_json is None, "a link and base64"
    with urllib.request.urlopen(image.url) as response:
        assert response.headers["content-type"].startswith("image/")
        return response.read()


def png(width, height, colour=(200, 90, 40), alpha=None):
    """A PNG of one colour; with `alpha` the left half lets through that much."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixel = bytes(colour)
    row = pixel * width
    if alpha is not None:
        row = (pixel + bytes([alpha])) * (width // 2) + (pixel + b"\xff") * (width - width // 2)
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if alpha is None else 6, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
