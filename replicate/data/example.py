"""From a record's payload to id, labels and frames.

A SequenceExample of these corpora holds each frame as one `Feature` message of constant size, so the frames of a
modality lie in memory at a fixed stride and are a numpy view, without copying or walking them. What stands before every
frame is known from its width alone and is compared for all frames before the stride is trusted; where anything differs,
the protobuf parser reads the record.
"""

import functools
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from replicate.data import messages
from replicate.data.spec import DatasetSpec


class FormatError(ValueError):
    """The payload is not a record of the dataset; the message says what is wrong with it."""


class _Irregular(Exception):
    """The bytes are not of the shape that the fast path reads."""


@dataclass(frozen=True)
class Record:
    """One video.

    Attributes:
        id: the video's id.
        labels: (labels,) int64, as stored.
        features: one (frames, width) array per modality, uint8 or float32; views of the payload where possible.
    """

    id: str
    labels: np.ndarray
    features: tuple[np.ndarray, ...]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.features[0])


def parse(spec: DatasetSpec, payload: bytes, strided: bool = True) -> Record:
    """Read one record and hold it against the dataset's specification.

    Args:
        spec: the dataset.
        payload: a serialised SequenceExample (or Example).
        strided: try the fixed-stride reading first; False always uses the protobuf parser.

    Raises:
        FormatError: a key is missing, a width is wrong, modalities differ in length, there are no or too many frames,
            no label or one out of range, the id is not text, or the bytes are no such message.
    """
    if spec.layout == "example":
        record = _parse_example(spec, payload)
    else:
        record = (_parse_strided(spec, payload) if strided else None) or _parse_sequence(spec, payload)
    check(spec, record)
    return record


def check(spec: DatasetSpec, record: Record) -> None:
    """Hold a parsed record against the specification; FormatError says what differs."""
    frames = record.frames
    if any(len(values) != frames for values in record.features):
        lengths = {feature.key: len(values) for feature, values in zip(spec.features, record.features, strict=True)}
        raise FormatError(f"modalities differ in length: {lengths} frames")
    if frames == 0:
        raise FormatError("has zero frames")
    if frames > spec.frame_limit:
        raise FormatError(f"has {frames} frames, more than {spec.frame_limit}")
    if spec.dtype == "float32":
        for feature, values in zip(spec.features, record.features, strict=True):
            if not np.isfinite(values).all():
                raise FormatError(f"{feature.key!r} holds values that are not finite")
    if not record.id or "\0" in record.id:
        raise FormatError(f"its id {record.id!r} is empty or holds a zero byte")
    if not len(record.labels):
        raise FormatError(f"has no labels (key {spec.label_key!r})")
    for label in record.labels.tolist():
        if not 0 <= label < spec.label_count:
            raise FormatError(f"label {label} is out of range 0..{spec.label_count - 1}")


def _parse_strided(spec: DatasetSpec, payload: bytes) -> Record | None:
    """SequenceExample {1: context, 2: FeatureLists}; None wherever the bytes are not exactly of the expected shape."""
    try:
        begin, end = _field(payload, 0, _FIRST)
        lists, lists_end = _field(payload, end, _SECOND)
        if lists_end != len(payload):
            return None
        features = _strided_lists(spec, payload, lists)
        context = messages.Features.FromString(payload[begin:end])
    except (_Irregular, IndexError, DecodeError):
        return None
    return Record(*_context(spec, context.feature), features)


def _strided_lists(spec: DatasetSpec, payload: bytes, at: int) -> tuple[np.ndarray, ...]:
    """FeatureLists, which reaches from `at` to the payload's end: map<string, FeatureList>; each entry is {1: key,
    2: FeatureList {1: Feature, 1: Feature, ...}}."""
    headers, found = _headers(spec), {}
    while at < len(payload):
        entry, at = _field(payload, at, _FIRST)
        key, key_end = _field(payload, entry, _FIRST)
        frames, frames_end = _field(payload, key_end, _SECOND)
        name = payload[key:key_end]
        if frames_end != at or name not in headers or name in found:
            raise _Irregular
        found[name] = _strided_frames(payload, frames, frames_end, *headers[name])
    if len(found) != len(headers):
        raise _Irregular
    return tuple(found[name] for name in headers)


def _strided_frames(payload: bytes, begin: int, end: int, header: bytes, width: int) -> np.ndarray:
    """The frames of one FeatureList as a (frames, width) view, if each of them stands behind exactly `header`."""
    stride = len(header) + width
    frames, rest = divmod(end - begin, stride)
    if rest or not frames:
        raise _Irregular
    headers = np.ndarray((frames,), f"V{len(header)}", payload, begin, (stride,))
    if headers.tobytes() != header * frames:
        raise _Irregular
    return np.ndarray((frames, width), np.uint8, payload, begin + len(header), (stride, 1))


@functools.cache
def _headers(spec: DatasetSpec) -> dict[bytes, tuple[bytes, int]]:
    """Per modality's key: what stands before a frame, Feature {1: BytesList {1: bytes}}, and the frame's width."""
    headers = {}
    for feature in spec.features:
        innermost = _FIRST_TAG + _varint(feature.width)
        middle = _FIRST_TAG + _varint(len(innermost) + feature.width) + innermost
        outermost = _FIRST_TAG + _varint(len(middle) + feature.width) + middle
        headers[feature.key.encode()] = outermost, feature.width
    return headers


SIZE_BYTES = 5  # that protobuf reads of a size at most
_FIRST, _SECOND = 1 << 3 | 2, 2 << 3 | 2  # tags of the length-delimited fields 1 and 2
_FIRST_TAG = bytes([_FIRST])


def _varint(value: int) -> bytes:
    """Protobuf's encoding of a number: seven bits a byte, lowest first."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _field(payload: bytes, at: int, tag: int) -> tuple[int, int]:
    """(begin, end) of the length-delimited field at `at`, which must have this tag."""
    if payload[at] != tag:
        raise _Irregular
    size = payload[at + 1]
    at += 2
    if size >= 0x80:
        size, shift = size & 0x7F, 7
        while True:
            byte = payload[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= 7 * SIZE_BYTES:
                raise _Irregular
    if at + size > len(payload):
        raise _Irregular
    return at, at + size


def _context(spec: DatasetSpec, context) -> tuple[str, np.ndarray]:
    """Id and labels out of a map<string, Feature>."""
    ids = context[spec.id_key].bytes_list.value if spec.id_key in context else ()
    if len(ids) != 1:
        raise FormatError(f"has {f'{len(ids)} ids' if ids else 'no id'} (key {spec.id_key!r})")
    labels = context[spec.label_key].int64_list.value if spec.label_key in context else ()
    try:
        return ids[0].decode(), np.fromiter(labels, np.int64, len(labels))
    except UnicodeDecodeError:
        raise FormatError(f"its id (key {spec.id_key!r}) is not UTF-8 text") from None


def _parse_sequence(spec: DatasetSpec, payload: bytes) -> Record:
    try:
        message = messages.SequenceExample.FromString(payload)
    except DecodeError:
        raise FormatError("is not a SequenceExample") from None
    video, labels = _context(spec, message.context.feature)
    arrays = []
    for feature in spec.features:
        if feature.key not in message.feature_lists.feature_list:
            raise FormatError(f"has no frames under key {feature.key!r}")
        frames = [frame.bytes_list.value for frame in message.feature_lists.feature_list[feature.key].feature]
        for number, frame in enumerate(frames):
            if len(frame) != 1 or len(frame[0]) != feature.width:
                found = f"{len(frame[0])} values" if len(frame) == 1 else f"{len(frame)} byte strings"
                raise FormatError(f"frame {number} of {feature.key!r} has {found}, not {feature.width} values")
        joined = b"".join(frame[0] for frame in frames)
        arrays.append(np.frombuffer(joined, np.uint8).reshape(len(frames), feature.width))
    return Record(video, labels, tuple(arrays))


def _parse_example(spec: DatasetSpec, payload: bytes) -> Record:
    try:
        message = messages.Example.FromString(payload)
    except DecodeError:
        raise FormatError("is not an Example") from None
    context = message.features.feature
    video, labels = _context(spec, context)
    arrays = []
    for feature in spec.features:
        if feature.key not in context:
            raise FormatError(f"has no vector under key {feature.key!r}")
        values = np.array(context[feature.key].float_list.value, np.float32)
        if len(values) != feature.width:
            raise FormatError(f"{feature.key!r} has {len(values)} values, not {feature.width}")
        arrays.append(values[None])
    return Record(video, labels, tuple(arrays))
