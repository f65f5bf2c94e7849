"""Claims: the fixed-stride reader, the protobuf parser and TensorFlow read the same out of every record that TensorFlow
can write, or refuse it; the first two with the same sentence. Every kind of wrong record is named."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import TWO, feature, sequence, video

from replicate.data import example
from replicate.data.example import FormatError, Record, parse
from replicate.data.spec import SPECS, DatasetSpec, Feature
from replicate.data.tensorflow_reader import parse as parse_with_tensorflow
from replicate.data.tensorflow_reader import tensorflow

WIDE = DatasetSpec("wide", "sequence", "id", "labels", (Feature("rgb", 200), Feature("audio", 127)), "uint8", 300, 10)


def outcome(read, *arguments):
    """The record as plain values, or the sentence."""
    try:
        record = read(*arguments)
    except FormatError as error:
        return str(error)
    return record.id, record.labels.tolist(), [(f.shape, f.dtype.name, f.tobytes()) for f in record.features]


def only_fast(spec, payload):
    return example._parse_strided(spec, payload)


@pytest.mark.parametrize("spec", [TWO, WIDE, SPECS["audioset"], SPECS["yt8m"]], ids=lambda spec: spec.name)
@pytest.mark.parametrize("frames", [1, 2, 6])
def test_well_formed_records_take_the_fast_path(spec, frames):
    payload = video("Abc1", labels=(0, 7), frames=frames, spec=spec)
    record = only_fast(spec, payload)
    assert (record.id, record.labels.tolist(), record.frames) == ("Abc1", [0, 7], frames)
    assert outcome(parse, spec, payload) == outcome(parse_with_tensorflow, spec, payload)


def test_frames_are_views_without_a_copy():
    payload = video("v", spec=SPECS["yt8m"], frames=300)
    for values in parse(SPECS["yt8m"], payload).features:
        base = values
        while isinstance(base, np.ndarray):
            base = base.base
        assert base is payload
        assert not values.flags.writeable


def test_extra_context_is_no_hindrance():
    payload = video("v", mean_rgb=[0.5] * 5, start=[1.0])
    assert only_fast(TWO, payload) is not None


BYTES = st.binary(max_size=6)
VALUES = st.none() | st.lists(BYTES, max_size=2) | st.lists(st.integers(-3, 12), max_size=4) | st.just([0.5, 1.5])
KEYS = st.sampled_from(["rgb", "audio", "other"])


@st.composite
def frame_lists(draw):
    """Mostly of the right width, so that all paths are met."""
    width = draw(st.sampled_from([5, 2, 5, 2, 1, 10]))
    regular = st.binary(min_size=width, max_size=width).map(lambda value: [value])
    frames = draw(st.lists(regular, max_size=8))
    if draw(st.integers(0, 3)) == 0:
        frames.insert(draw(st.integers(0, len(frames))), draw(VALUES))
    return frames


CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([[b"video"], [b"video"], [b"\xff\xfe"], [b""], [b"a", b"b"], [3], None]),
        "labels": st.lists(st.integers(-1, 10), max_size=4) | st.just([2]) | st.just([b"x"]) | st.none(),
        "other": VALUES,
    },
)


def regular(width: int, count: int):
    frame = st.binary(min_size=width, max_size=width).map(lambda value: [value])
    return st.lists(frame, min_size=count, max_size=count)


RIGHT = st.integers(0, 7).flatmap(
    lambda count: st.fixed_dictionaries({"rgb": regular(5, count), "audio": regular(2, count)})
)


@settings(max_examples=150)
@given(CONTEXT, RIGHT | st.dictionaries(KEYS, frame_lists(), max_size=3))
def test_random_records_fast_slow_and_tensorflow_agree(context, lists):
    payload = sequence(context, lists)
    fast, slow = outcome(parse, TWO, payload, True), outcome(parse, TWO, payload, False)
    assert fast == slow
    other = outcome(parse_with_tensorflow, TWO, payload)
    if isinstance(slow, str):
        assert isinstance(other, str)
    else:
        assert other == slow


@settings(max_examples=500)
@given(st.data())
def test_damaged_bytes_fast_and_slow_agree(data):
    payload = bytearray(video("v", labels=(1, 2), frames=data.draw(st.integers(1, 4))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                payload[place] = data.draw(st.integers(0, 255))
            case 1:
                del payload[place : place + data.draw(st.integers(1, 9))]
            case 2:
                payload[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        if not payload:
            break
    assert outcome(parse, TWO, bytes(payload), True) == outcome(parse, TWO, bytes(payload), False)


def reordered(payload: bytes, swap_fields: bool, swap_lists: bool) -> bytes:
    """The same message with its fields, or the entries of its map of lists, the other way round."""
    context, lists = example._field(payload, 0, 0x0A), None
    lists = example._field(payload, context[1], 0x12)
    inside = payload[slice(*lists)]
    if swap_lists:
        _, end = example._field(inside, 0, 0x0A)
        inside = inside[end:] + inside[:end]
    parts = [payload[: context[1]], payload[context[1] : lists[0]] + inside]
    return b"".join(reversed(parts) if swap_fields else parts)


@pytest.mark.parametrize("swap_fields", [False, True])
@pytest.mark.parametrize("swap_lists", [False, True])
def test_order_within_the_message_does_not_matter(swap_fields, swap_lists):
    payload = video("v", labels=(4,), frames=4)
    other = reordered(payload, swap_fields, swap_lists)
    assert (other != payload) == (swap_fields or swap_lists)
    assert outcome(parse, TWO, other) == outcome(parse, TWO, payload) == outcome(parse_with_tensorflow, TWO, other)
    assert (only_fast(TWO, other) is None) == swap_fields


def prefixed(tag: int, content: bytes) -> bytes:
    assert len(content) < 0x80
    return bytes([tag, len(content)]) + content


def entry(key: bytes, values: list[bytes], more: bytes = b"") -> bytes:
    lists = b"".join(prefixed(0x0A, prefixed(0x0A, prefixed(0x0A, value))) for value in values)
    return prefixed(0x0A, prefixed(0x0A, key) + prefixed(0x12, lists) + more)


RGB, AUDIO = [b"12345", b"67890"], [b"ab", b"cd"]
IRREGULAR = {
    "none": (entry(b"rgb", RGB) + entry(b"audio", AUDIO), True),
    "a key twice": (entry(b"rgb", RGB) + entry(b"audio", AUDIO) + entry(b"rgb", RGB[::-1]), False),
    "an unknown field": (entry(b"rgb", RGB, prefixed(0x1A, b"?")) + entry(b"audio", AUDIO), False),
    "an unknown key": (entry(b"rgb", RGB) + entry(b"audio", AUDIO) + entry(b"more", AUDIO), False),
    "a longer form of a number": (
        b"\x0a\x9d\x00" + entry(b"rgb", RGB)[2:] + entry(b"audio", AUDIO), True,
    ),
    "the longest form of a size": (
        b"\x0a\x9d\x80\x80\x80\x00" + entry(b"rgb", RGB)[2:] + entry(b"audio", AUDIO), True,
    ),
    "a longer form than protobuf reads": (
        b"\x0a\x9d\x80\x80\x80\x80\x00" + entry(b"rgb", RGB)[2:] + entry(b"audio", AUDIO), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IRREGULAR)
def test_irregular_messages_are_left_to_the_parser(name):
    lists, fast = IRREGULAR[name]
    context = video("v", frames=1)
    payload = context[: example._field(context, 0, 0x0A)[1]] + prefixed(0x12, lists)
    assert (only_fast(TWO, payload) is not None) == fast
    assert outcome(parse, TWO, payload, True) == outcome(parse, TWO, payload, False)


def frames(widths, count=3):
    return {key: [[bytes(width)] for _ in range(count)] for key, width in widths.items()}


GOOD = {"id": [b"v"], "labels": [1]}
WRONG = {
    "no id": (sequence, {"labels": [1]}, {"rgb": 5, "audio": 2}, 3, "has no id (key 'id')"),
    "two ids": (sequence, {**GOOD, "id": [b"a", b"b"]}, {"rgb": 5, "audio": 2}, 3, "has 2 ids (key 'id')"),
    "empty id": (sequence, {**GOOD, "id": [b""]}, {"rgb": 5, "audio": 2}, 3, "its id '' is empty or holds a zero byte"),
    "no text": (sequence, {**GOOD, "id": [b"\xff"]}, {"rgb": 5, "audio": 2}, 3, "its id (key 'id') is not UTF-8 text"),
    "no labels": (sequence, {"id": [b"v"]}, {"rgb": 5, "audio": 2}, 3, "has no labels (key 'labels')"),
    "text labels": (sequence, {**GOOD, "labels": [b"x"]}, {"rgb": 5, "audio": 2}, 3,
                    "has no labels (key 'labels')"),
    "empty labels": (sequence, {**GOOD, "labels": None}, {"rgb": 5, "audio": 2}, 3, "has no labels (key 'labels')"),
    "high label": (sequence, {**GOOD, "labels": [3, 10]}, {"rgb": 5, "audio": 2}, 3, "label 10 is out of range 0..9"),
    "negative": (sequence, {**GOOD, "labels": [-1]}, {"rgb": 5, "audio": 2}, 3, "label -1 is out of range 0..9"),
    "no audio": (sequence, GOOD, {"rgb": 5}, 3, "has no frames under key 'audio'"),
    "width": (sequence, GOOD, {"rgb": 4, "audio": 2}, 3, "frame 0 of 'rgb' has 4 values, not 5 values"),
    "zero frames": (sequence, GOOD, {"rgb": 5, "audio": 2}, 0, "has zero frames"),
    "too many": (sequence, GOOD, {"rgb": 5, "audio": 2}, 7, "has 7 frames, more than 6"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("strided", [True, False])
def test_wrong_records_are_named(name, strided):
    build, context, widths, count, sentence = WRONG[name]
    with pytest.raises(FormatError) as caught:
        parse(TWO, build(context, frames(widths, count)), strided)
    assert str(caught.value) == sentence


def test_modalities_of_different_length_are_named():
    lists = frames({"rgb": 5}, 3) | frames({"audio": 2}, 2)
    with pytest.raises(FormatError, match=r"modalities differ in length: \{'rgb': 3, 'audio': 2\} frames"):
        parse(TWO, sequence(GOOD, lists))


def test_more_than_300_frames_of_youtube_8m_are_refused():
    parse(SPECS["yt8m"], video("v", spec=SPECS["yt8m"], frames=300))
    with pytest.raises(FormatError, match="has 301 frames, more than 300"):
        parse(SPECS["yt8m"], video("v", spec=SPECS["yt8m"], frames=301))


def test_bytes_that_are_no_message_are_named():
    for spec, sentence in ((TWO, "is not a SequenceExample"), (VECTORS, "is not an Example")):
        with pytest.raises(FormatError, match=sentence):
            parse(spec, b"\x0a\xff\xff")


VECTORS = DatasetSpec("vectors", "example", "id", "labels", (Feature("a", 3), Feature("b", 2)), "float32", 1, 10)


def vectors(**values) -> bytes:
    tf = tensorflow()
    context = {"id": [b"v"], "labels": [1, 2], "a": [0.5, -1.0, 2.0], "b": [3.0, 4.0], **values}
    features = {key: feature(value) for key, value in context.items() if value != "absent"}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def test_vectors_are_read_as_tensorflow_reads_them():
    assert outcome(parse, VECTORS, vectors()) == outcome(parse_with_tensorflow, VECTORS, vectors())
    record = parse(VECTORS, vectors())
    assert isinstance(record, Record) and record.frames == 1
    assert record.features[0].tolist() == [[0.5, -1.0, 2.0]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": "absent"}, "has no vector under key 'a'"),
        ({"b": [1.0]}, "'b' has 1 values, not 2"),
        ({"a": [1.0, float("nan"), 0.0]}, "'a' holds values that are not finite"),
        ({"id": "absent"}, r"has no id \(key 'id'\)"),
        ({"labels": [10]}, "label 10 is out of range 0..9"),
    ],
)
def test_wrong_vectors_are_named_and_tensorflow_refuses_them_too(values, sentence):
    with pytest.raises(FormatError, match=sentence):
        parse(VECTORS, vectors(**values))
    with pytest.raises(FormatError):
        parse_with_tensorflow(VECTORS, vectors(**values))


def test_a_width_is_part_of_the_format():
    payload = video("v", spec=TWO)
    wider = dataclasses.replace(TWO, features=(Feature("rgb", 5), Feature("audio", 3)))
    with pytest.raises(FormatError, match="frame 0 of 'audio' has 2 values, not 3 values"):
        parse(wider, payload)
