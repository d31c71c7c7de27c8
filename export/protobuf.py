"""Helpers for the protocol buffers of ONNX."""


def copy(model):
    """Copies a message with all that it holds."""
    duplicate = type(model)()
    duplicate.CopyFrom(model)
    return duplicate


def replace(repeated, values) -> None:
    """Replaces what a repeated field of a protocol buffer holds."""
    kept = [value if isinstance(value, str) else copy(value) for value in values]
    del repeated[:]  # empties the messages it held, hence the copies
    repeated.extend(kept)


def share_constants(model) -> None:
    """Merges equal constants, those of inner graphs too: ONNX Runtime opens fewer faster."""
    named = {value.name for value in (*model.graph.input, *model.graph.output)}
    _share_constants(model.graph, {}, {}, named)


def _share_constants(graph, known, renamed, named) -> None:
    """Leaves the constants that are not in `known`, by content, nor `named` from outside."""
    known, renamed, left = dict(known), dict(renamed), []
    for tensor in graph.initializer:
        content = copy(tensor)
        content.name = ""
        key = content.SerializeToString(deterministic=True)
        if tensor.name in named or key not in known:
            left.append(tensor)
        else:
            renamed[tensor.name] = known[key]
        if tensor.name not in named:
            known.setdefault(key, tensor.name)
    replace(graph.initializer, left)
    for node in graph.node:
        replace(node.input, [renamed.get(name, name) for name in node.input])
        for attribute in node.attribute:
            if attribute.HasField("g"):
                outputs = {value.name for value in attribute.g.output}
                _share_constants(attribute.g, known, renamed, outputs)
