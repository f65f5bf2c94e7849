"""The independent reader: TensorFlow's own parser, for comparison (`--set dataset.reader=tensorflow`)."""

import functools
import os

import numpy as np

from replicate.data.example import FormatError, Record, check
from replicate.data.spec import DatasetSpec


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
            features = tuple(_decode(tf, frames[feature.key], feature.width) for feature in spec.features)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise FormatError(f"TensorFlow cannot parse it: {error.message}") from None
    record = Record(values[spec.id_key].numpy().decode(), values[spec.label_key].values.numpy(), features)
    check(spec, record)
    return record


def _decode(tf, frames, width: int) -> np.ndarray:
    return tf.reshape(tf.io.decode_raw(frames, tf.uint8), (-1, width)).numpy()
