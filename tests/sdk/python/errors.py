"""Every class of error as the SDK's own exception, with code, param, type and request id."""

import time

import openai
from easel import BASE_URL, BOUND_KEY, KEY, LIMITED_KEY, POOR_KEY, PROMPT, client


def fails(exception, status, code, param=None, *, api=None, type=None, **request):
    request = {"model": "dall-e-3", "prompt": PROMPT} | request
    try:
        answer = (api or client()).images.generate(**request)
    except openai.APIStatusError as error:
        assert isinstance(error, exception), (error.__class__, error)
        assert error.status_code == status, error
        assert (error.code, error.param) == (code, param), (error.code, error.param, error)
        assert error.type, error
        assert type is None or error.type == type, error.type
        assert error.message and error.request_id.startswith("req_"), error
        assert PROMPT not in error.message
        return error
    raise AssertionError(f"{request} was served: {answer}")


BAD = openai.BadRequestError

# The caller's mistakes.
fails(BAD, 400, "invalid_size", "size", size="1x1")
fails(BAD, 400, "invalid_value", "quality", quality="low")
fails(BAD, 400, "integer_above_max_value", "n", n=2)
fails(BAD, 400, "integer_above_max_value", "n", model="dall-e-2", n=11)
fails(BAD, 400, "unknown_parameter", "background", background="opaque")
fails(BAD, 400, "unknown_parameter", "seed", extra_body={"seed": 1})
fails(BAD, 400, "string_above_max_length", "prompt", model="dall-e-2", prompt="x" * 1001)
fails(BAD, 400, "missing_required_parameter", "prompt", prompt=openai.omit)
fails(BAD, 400, "invalid_value", "size", model="gpt-image-2", size="1792x936")
fails(BAD, 400, "no_route", "provider", extra_body={"provider": {"only": ["sandbox"]}})

# Keys, money, models, limits.
fails(openai.AuthenticationError, 401, "invalid_api_key", api=client("ek_live_" + "0" * 40))
fails(openai.APIStatusError, 402, "insufficient_balance", api=client(POOR_KEY))
bound = fails(openai.PermissionDeniedError, 403, "model_not_allowed", "model", api=client(BOUND_KEY))
assert "dall-e-3" in bound.message
fails(openai.NotFoundError, 404, "model_not_found", "model", model="dall-e-9")
limited = client(LIMITED_KEY)
limited.images.generate(model="dall-e-2", prompt=PROMPT, size="256x256")
error = fails(openai.RateLimitError, 429, "rate_limit_exceeded", api=limited)
assert float(error.response.headers["retry-after"]) > 0

# What the provider refuses.
fails(BAD, 400, "content_policy_violation", prompt="[fake:moderation_dalle]")
fails(
    BAD,
    400,
    "moderation_blocked",
    model="gpt-image-1",
    prompt="[fake:moderation_gpt]",
    type="image_generation_user_error",
)

# What the provider does to us. The SDK would repeat these by itself; the gateway says not to.
for name, exception, status, code in [
    ("server_error", openai.InternalServerError, 502, "upstream_error"),
    ("html", openai.InternalServerError, 502, "upstream_error"),
    ("wrong_key", openai.InternalServerError, 502, "upstream_error"),
    ("insufficient_quota", openai.InternalServerError, 502, "upstream_error"),
    ("not_a_picture", openai.InternalServerError, 502, "upstream_error"),
    ("cut", openai.InternalServerError, 502, "upstream_error"),
    ("never", openai.InternalServerError, 504, "upstream_timeout"),
]:
    begun = time.monotonic()
    error = fails(exception, status, code, api=client(KEY, max_retries=2), prompt=f"[fake:{name}]")
    assert error.response.headers["x-should-retry"] == "false", name
    # "never" takes the provider's timeout once; with the SDK's retries it would be three times that.
    assert time.monotonic() - begun < 12, f"{name} was repeated"
error = fails(openai.RateLimitError, 429, "upstream_rate_limited", prompt="[fake:rate_limited]")
assert error.response.headers["retry-after"] == "1"

# A wrong path below the base URL.
try:
    openai.OpenAI(base_url=BASE_URL.removesuffix("/v1"), api_key=KEY, max_retries=0).images.generate(
        model="dall-e-2", prompt=PROMPT
    )
    raise AssertionError("a path without /v1 was served")
except openai.NotFoundError as error:
    assert "/images/generations" in error.message
