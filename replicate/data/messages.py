"""The message types of TensorFlow's example.proto, built for the protobuf runtime without importing TensorFlow.

Field numbers are those of the public format (tensorflow/core/example/feature.proto and example.proto).
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "replicate.records"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="replicate/records.proto", package=_PACKAGE, syntax="proto3")

    def message(name: str, *fields: tuple) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for number, (field, kind, label) in enumerate(fields, start=1):
            scalar = isinstance(kind, int)
            made.field.add(
                name=field, number=number, label=label, type=kind if scalar else _FIELD.TYPE_MESSAGE,
                type_name=None if scalar else f".{_PACKAGE}.{kind}",
            )  # fmt: skip
        return made

    def map_of(name: str, field: str, kind: str) -> None:
        entry = "".join(word.capitalize() for word in field.split("_")) + "Entry"
        made = message(name, (field, f"{name}.{entry}", _FIELD.LABEL_REPEATED))
        nested = made.nested_type.add(name=entry)
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
        nested.field.add(
            name="value", number=2, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_MESSAGE,
            type_name=f".{_PACKAGE}.{kind}",
        )  # fmt: skip

    repeated, optional = _FIELD.LABEL_REPEATED, _FIELD.LABEL_OPTIONAL
    message("BytesList", ("value", _FIELD.TYPE_BYTES, repeated))
    message("FloatList", ("value", _FIELD.TYPE_FLOAT, repeated))
    message("Int64List", ("value", _FIELD.TYPE_INT64, repeated))
    feature = message(
        "Feature", ("bytes_list", "BytesList", optional), ("float_list", "FloatList", optional),
        ("int64_list", "Int64List", optional),
    )  # fmt: skip
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    map_of("Features", "feature", "Feature")
    message("FeatureList", ("feature", "Feature", repeated))
    map_of("FeatureLists", "feature_list", "FeatureList")
    message("Example", ("features", "Features", optional))
    message("SequenceExample", ("context", "Features", optional), ("feature_lists", "FeatureLists", optional))
    for made in file.message_type:
        for field in made.field:
            if field.name == "value" and field.type != _FIELD.TYPE_BYTES:
                field.options.packed = True
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _class(name: str):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Features, Example, SequenceExample = _class("Features"), _class("Example"), _class("SequenceExample")
