"""Parts of messages that are not text: what tells one from another, however it is sent."""

import msgspec

from gateway.kvcache.json_text import digest_of, digest_of_url
from gateway.request.raw_fields import ABSENT


class _Source(msgspec.Struct):
    type: str = "base64"
    media_type: str = "image/jpeg"
    data: msgspec.Raw = ABSENT
    url: msgspec.Raw = ABSENT


class _Link(msgspec.Struct):
    url: msgspec.Raw = ABSENT


class _Image(msgspec.Struct):
    """An image in OpenAI's or Anthropic's form."""

    image_url: msgspec.Raw = ABSENT
    source: _Source | None = None
    uuid: msgspec.Raw = ABSENT


_image_decoder = msgspec.json.Decoder(_Image)
_link_decoder = msgspec.json.Decoder(_Link)


def media_digest(raw: msgspec.Raw) -> int:
    """Hash of what identifies a part: an image's URL or data and its `uuid`; of others, all of it.

    No image is decoded or copied.
    """
    try:
        image = _image_decoder.decode(raw)
        uuid, url = bytes(image.uuid), _url(image)
    except msgspec.ValidationError:
        return digest_of(raw)
    if image.source is not None and image.source.type != "url":
        start = b'"data:%b;base64,' % image.source.media_type.encode()
        return digest_of_url(uuid + start, memoryview(image.source.data)[1:])
    return digest_of_url(uuid, url) if url or uuid else digest_of(raw)


def _url(image: _Image) -> msgspec.Raw:
    if image.source is not None:
        return image.source.url
    if bytes(memoryview(image.image_url)[:1]) == b"{":
        return _link_decoder.decode(image.image_url).url
    return image.image_url
