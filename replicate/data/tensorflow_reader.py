"""The independent reader: TensorFlow's own parser, for comparison (`--set dataset.reader=tensorflow`)."""

import functools
import os

import numpy as np

from replicate.data.example import FormatError, Record, check
from replicate.data.spec import DatasetSpec, Feature


@functools.cache
def tensorflow():
    """TensorFlow, with the GPUs hidden from it: it would take the memory that torch needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it speaks up on import, and nothing here needs it
    import tensorflow

    tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def parse(spec: DatasetSpec, payload: bytes) -> Record:
    """As `replicate.data.example.parse`, by TensorFlow.

    Raises:
        FormatError: TensorFlow cannot parse the record, or it does not fit the specification.
    """
    tf = tensorflow()
    context = {
        spec.id_key: tf.io.FixedLenFeature([], tf.string),
        spec.label_key: tf.io.VarLenFeature(tf.int64),
    }
    try:
        if spec.layout == "example":
            vectors = {feature.key: tf.io.FixedLenFeature([feature.width], tf.float32) for feature in spec.features}
            values = tf.io.parse_single_example(payload, context | vectors)
            features = tuple(values[feature.key].numpy()[None] for feature in spec.features)
        else:
            lists = {feature.key: tf.io.FixedLenSequenceFeature([], tf.string) for feature in spec.features}
            values, frames = tf.io.parse_single_sequence_example(payload, context, lists)
            features = tuple(_decode(tf, frames[feature.key], feature) for feature in spec.features)
        video = values[spec.id_key].numpy().decode()
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise FormatError(f"TensorFlow cannot parse it: {error.message}") from None
    except UnicodeDecodeError:
        raise FormatError(f"its id (key {spec.id_key!r}) is not UTF-8 text") from None
    record = Record(video, values[spec.label_key].values.numpy(), features)
    check(spec, record)
    return record


def _decode(tf, frames, feature: Feature) -> np.ndarray:
    """(frames, width) uint8 out of a list of byte strings, which must be of equal length."""
    if not len(frames):
        return np.zeros((0, feature.width), np.uint8)
    values = tf.io.decode_raw(frames, tf.uint8).numpy()
    if values.shape[1] != feature.width:
        raise FormatError(f"frames of {feature.key!r} have {values.shape[1]} values, not {feature.width}")
    return values
