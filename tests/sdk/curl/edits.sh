#!/usr/bin/env bash
# Edits as JSON, which no SDK sends, and streams without any SDK.
set -euo pipefail

picture=iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR4nGM4EaVBEmIY1TCqYfhqAAAQtkoQSP1gsgAAAABJRU5ErkJggg==

# The answer to these curl arguments; fails unless the status is 200.
ask() {
    curl --silent --show-error --fail-with-body --max-time 60 \
        -H "Authorization: Bearer $EASEL_KEY" -H 'Content-Type: application/json' "$@"
}

must_have() {
    [[ $1 == *"$2"* ]] || { echo "no $2 in: ${1:0:400}"; exit 1; }
}

# One picture as a data URL, then two.
answer=$(ask "$EASEL_BASE_URL/images/edits" -d '{
    "model": "gpt-image-1", "prompt": "an otter", "size": "1024x1024", "quality": "low",
    "images": [{"image_url": "data:image/png;base64,'$picture'"}]}')
must_have "$answer" '"b64_json":"iVBORw0KGgo'
must_have "$answer" '"provider":"openai"'
answer=$(ask "$EASEL_BASE_URL/images/edits" -d '{
    "model": "gpt-image-2", "prompt": "two otters",
    "images": [{"image_url": "data:image/png;base64,'$picture'"}, {"image_url": "data:image/png;base64,'$picture'"}]}')
must_have "$answer" '"b64_json":"iVBORw0KGgo'

# As a stream.
answer=$(ask --no-buffer "$EASEL_BASE_URL/images/edits" -d '{
    "model": "gpt-image-1", "prompt": "an otter", "stream": true, "partial_images": 1,
    "images": [{"image_url": "data:image/png;base64,'$picture'"}]}')
must_have "$answer" $'event: image_edit.partial_image\ndata: {'
must_have "$answer" $'event: image_edit.completed\ndata: {'
must_have "$answer" '"cost":'

# A link is not opened unless the operator wants that.
if answer=$(ask "$EASEL_BASE_URL/images/edits" -d '{
    "model": "gpt-image-1", "prompt": "an otter", "images": [{"image_url": "http://127.0.0.1:1/otter.png"}]}'); then
    echo "a link was opened: ${answer:0:400}"
    exit 1
fi
must_have "$answer" '"error"'
