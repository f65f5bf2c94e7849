"""From a record's payload to id, labels and frames.

A SequenceExample of these corpora holds each frame as one `Feature` message of constant size, so the frames of a
modality lie in memory at a fixed stride and are a numpy view, without copying or walking them. The stride is verified
against every frame's message header before it is trusted; where it does not hold, the protobuf parser reads the record.
"""

from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from replicate.data import messages
from replicate.data.spec import DatasetSpec


class FormatError(ValueError):
    """The payload is not a record of the dataset; the message says what is wrong with it."""


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
            a label is out of range, the id is not text, or the bytes are no such message.
    """
    if spec.layout == "example":
        record = _parse_example(spec, payload)
    else:
        record = (_parse_strided(spec, payload) if strided else None) or _parse_sequence(spec, payload)
    check(spec, record)
    return record


def check(spec: DatasetSpec, record: Record) -> None:
    """Hold a parsed record against the specification; FormatError says what differs."""
    lengths = {feature.key: len(values) for feature, values in zip(spec.features, record.features, strict=True)}
    if len(set(lengths.values())) > 1:
        raise FormatError(f"modalities differ in length: {lengths} frames")
    if record.frames == 0:
        raise FormatError("has zero frames")
    if record.frames > spec.frame_limit:
        raise FormatError(f"has {record.frames} frames, more than {spec.frame_limit}")
    wrong = record.labels[(record.labels < 0) | (record.labels >= spec.label_count)]
    if len(wrong):
        raise FormatError(f"label {wrong[0]} is out of range 0..{spec.label_count - 1}")


def _parse_strided(spec: DatasetSpec, payload: bytes) -> Record | None:
    """The fast path; None wherever the bytes are not exactly of the expected shape."""
    try:
        context = lists = None
        for field, begin, end in _fields(payload, 0, len(payload)):
            if field == 1 and context is None:
                context = (begin, end)
            elif field == 2 and lists is None:
                lists = (begin, end)
            else:
                return None
        if context is None or lists is None:
            return None
        arrays = _strided_lists(payload, *lists)
        features = tuple(arrays[feature.key] for feature in spec.features)
        if any(values.shape[1] != feature.width for feature, values in zip(spec.features, features, strict=True)):
            return None
        video, labels = _context(spec, messages.Features.FromString(payload[context[0] : context[1]]))
    except (IndexError, KeyError, DecodeError):
        return None
    return Record(video, labels, features)


def _strided_lists(payload: bytes, begin: int, end: int) -> dict[str, np.ndarray]:
    """FeatureLists: map<string, FeatureList>; each entry is {1: key, 2: FeatureList {1: Feature, 1: Feature, ...}}."""
    arrays = {}
    for field, entry, entry_end in _fields(payload, begin, end):
        parts = {number: span for number, *span in _fields(payload, entry, entry_end)}
        if field != 1 or parts.keys() != {1, 2}:
            raise KeyError("not a map entry")
        key = payload[slice(*parts[1])].decode("ascii", "replace")
        arrays[key] = _strided_frames(payload, *parts[2])
    return arrays


def _strided_frames(payload: bytes, begin: int, end: int) -> np.ndarray:
    """The frames of one FeatureList as a (frames, width) view: Feature {1: BytesList {1: bytes}}, all of equal size."""
    if begin == end:
        raise KeyError("no frames")
    _, feature, feature_end = next(_fields(payload, begin, end))
    _, values, values_end = next(_fields(payload, feature, feature_end))
    _, data, data_end = next(_fields(payload, values, values_end))
    stride = feature_end - begin
    if not (feature_end == values_end == data_end) or (end - begin) % stride:
        raise KeyError("frames are not at a fixed stride")
    table = np.frombuffer(payload, np.uint8, end - begin, begin).reshape(-1, stride)
    header = data - begin
    if payload[begin] != 0x0A or payload[feature] != 0x0A or payload[values] != 0x0A:
        raise KeyError("not bytes lists")
    if (table[:, :header] != table[0, :header]).any():
        raise KeyError("frames are not at a fixed stride")
    return table[:, header:]


def _fields(payload: bytes, begin: int, end: int):
    """(field number, begin, end) of the length-delimited fields of a message; IndexError for anything else."""
    while begin < end:
        tag, begin = _varint(payload, begin)
        if tag & 7 != 2:
            raise IndexError("not a length-delimited field")
        size, begin = _varint(payload, begin)
        if begin + size > end:
            raise IndexError("field runs over the end")
        yield tag >> 3, begin, begin + size
        begin += size


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    byte = payload[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = payload[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise IndexError("varint too long")
    return value, at + 1


def _context(spec: DatasetSpec, features) -> tuple[str, np.ndarray]:
    context = features.feature
    if spec.id_key not in context or not context[spec.id_key].bytes_list.value:
        raise FormatError(f"has no id (key {spec.id_key!r})")
    if spec.label_key not in context:
        raise FormatError(f"has no labels (key {spec.label_key!r})")
    try:
        video = context[spec.id_key].bytes_list.value[0].decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"its id (key {spec.id_key!r}) is not UTF-8 text") from None
    return video, np.array(context[spec.label_key].int64_list.value, np.int64)


def _parse_sequence(spec: DatasetSpec, payload: bytes) -> Record:
    try:
        message = messages.SequenceExample.FromString(payload)
    except DecodeError:
        raise FormatError("is not a SequenceExample") from None
    video, labels = _context(spec, message.context)
    arrays = []
    for feature in spec.features:
        if feature.key not in message.feature_lists.feature_list:
            raise FormatError(f"has no frames under key {feature.key!r}")
        frames = [
            frame.bytes_list.value[0] if frame.bytes_list.value else b""
            for frame in message.feature_lists.feature_list[feature.key].feature
        ]
        wrong = next((number for number, frame in enumerate(frames) if len(frame) != feature.width), None)
        if wrong is not None:
            raise FormatError(f"frame {wrong} of {feature.key!r} has {len(frames[wrong])} values, not {feature.width}")
        arrays.append(np.frombuffer(b"".join(frames), np.uint8).reshape(len(frames), feature.width))
    return Record(video, labels, tuple(arrays))


def _parse_example(spec: DatasetSpec, payload: bytes) -> Record:
    try:
        message = messages.Example.FromString(payload)
    except DecodeError:
        raise FormatError("is not an Example") from None
    video, labels = _context(spec, message.features)
    arrays = []
    for feature in spec.features:
        if feature.key not in message.features.feature:
            raise FormatError(f"has no vector under key {feature.key!r}")
        values = np.array(message.features.feature[feature.key].float_list.value, np.float32)
        if len(values) != feature.width:
            raise FormatError(f"{feature.key!r} has {len(values)} values, not {feature.width}")
        if not np.isfinite(values).all():
            raise FormatError(f"{feature.key!r} holds values that are not finite")
        arrays.append(values[None])
    return Record(video, labels, tuple(arrays))
