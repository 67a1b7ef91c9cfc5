"""Wrong answers to the exercises of lesson 05, each with words from the message that its check must give."""

from collections import Counter
from dataclasses import replace

from onnx import helper

from tutorial_utils import engine
from tutorial_utils.engine.tensorrt import trt

# --- 05c.1 -----------------------------------------------------------------------------------------------------------


def with_formats(choose):
    """Return an answer to 05c.1: `choose` takes an input and its number, and returns the mask for it, or None."""

    def engine_for_nhwc(onnx_path, options):
        def configure(network, config):
            for i in range(network.num_inputs):
                tensor = network.get_input(i)
                if (mask := choose(tensor, i)) is not None:
                    tensor.allowed_formats = mask

        return engine.build(onnx_path, options, configure=configure, progress=False)

    return engine_for_nhwc


def mask(name):
    return 1 << int(getattr(trt.TensorFormat, name))


# --- 05c.2 -----------------------------------------------------------------------------------------------------------


def writers(model):
    return {name: node for node in model.graph.node for name in node.output}


def relus(model):
    return [node for node in model.graph.node if node.op_type == "Relu"]


def reasons(model, apart):
    """Return the right reason for each of these ReLUs."""
    outputs = {value.name for value in model.graph.output}
    before = writers(model)
    return {
        node.name: "output" if node.input[0] in outputs else before[node.input[0]].op_type
        for node in relus(model)
        if node.name in apart
    }


def apart_from(model, report, convolutions):
    """Return the ReLUs that share their kernel with none of these nodes."""
    fused = {name for kernel in report.kernels for name in kernel.onnx_nodes if convolutions & {*kernel.onnx_nodes}}
    return {node.name for node in relus(model)} - fused


def really_apart(model, report):
    return apart_from(model, report, {node.name for node in model.graph.node if node.op_type == "Conv"})


def goes_by_names(model, report):
    apart = apart_from(model, report, {node.name for node in model.graph.node if "conv" in node.name})
    return {name: reason for name, reason in reasons(model, apart).items() if "relu" in name}


def names_all(model, report):
    return {node.name: writers(model)[node.input[0]].op_type for node in relus(model)}


def ignores_outputs(model, report):
    apart = really_apart(model, report)
    return {name: operator for name, operator in names_all(model, report).items() if name in apart}


def looks_at_the_graph(model, report):
    """Everything that doesn't stand right behind a convolution, or whose tensor is an output."""
    outputs = {value.name for value in model.graph.output}
    before = writers(model)
    suspicious = {
        node.name for node in relus(model) if node.input[0] in outputs or before[node.input[0]].op_type != "Conv"
    }
    return reasons(model, suspicious)


def alone_in_its_kernel(model, report):
    return reasons(model, {kernel.onnx_nodes[0] for kernel in report.kernels if len(kernel.onnx_nodes) == 1})


def only_the_first(model, report):
    return dict(list(reasons(model, really_apart(model, report)).items())[:1])


# --- 05c.3 -----------------------------------------------------------------------------------------------------------


def bypass(model, nodes):
    """Remove nodes; whoever read their output reads their input."""
    for node in nodes:
        for reader in model.graph.node:
            for i, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[i] = node.input[0]
        model.graph.node.remove(node)
    return model


def transposes(model):
    return [node for node in model.graph.node if node.op_type == "Transpose"]


def pairs(model):
    """Return the transposes that undo each other around a ReLU, with that ReLU."""
    before = writers(model)
    found = []
    for second in transposes(model):
        relu = before[second.input[0]]
        first = before.get(relu.input[0])
        if relu.op_type != "Relu" or first is None or first.op_type != "Transpose":
            continue
        if [first.attribute[0].ints[axis] for axis in second.attribute[0].ints] == [0, 1, 2, 3]:
            found.append((first, relu, second))
    return found


def drop_all(model):
    return bypass(model, transposes(model))


def drop_first_of_each(model):
    return bypass(model, [first for first, _, _ in pairs(model)])


def drop_without_connecting(model):
    for node in transposes(model):
        model.graph.node.remove(node)
    return model


def drop_inverse(model):
    return bypass(model, [node for first, _, second in pairs(model) for node in (first, second)])


def drop_inverse_and_rename(model):
    """The ReLU writes what the second transpose wrote; what lay between is gone, whoever wants it."""
    for first, relu, second in pairs(model):
        relu.input[0], relu.output[0] = first.input[0], second.output[0]
        model.graph.node.remove(first)
        model.graph.node.remove(second)
    return model


def drop_one_pair(model):
    outputs = {value.name for value in model.graph.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    for first, relu, second in pairs(model)[:1]:
        if relu.output[0] not in outputs and readers[first.output[0]] == readers[relu.output[0]] == 1:
            bypass(model, [first, second])
    return model


def drop_unless(kept, operators=("Relu",)):
    """Return a wrong answer: pairs around these operators go, unless the function says that they are kept."""

    def without_transposes(model):
        before = writers(model)
        for second in transposes(model):
            inner = before[second.input[0]]
            first = before.get(inner.input[0])
            if inner.op_type not in operators or first is None or first.op_type != "Transpose":
                continue
            there, back = (node.attribute[0].ints for node in (first, second))
            if [there[axis] for axis in back] == [0, 1, 2, 3] and not kept(model, first, inner):
                inner.input[0], inner.output[0] = first.input[0], second.output[0]
                model.graph.node.remove(first)
                model.graph.node.remove(second)
        return model

    return without_transposes


def is_output(model, *nodes):
    return any(node.output[0] in [value.name for value in model.graph.output] for node in nodes)


def read_twice(model, node):
    return sum(node.output[0] in reader.input for reader in model.graph.node) > 1


def connecting_others(kept):
    """Return a wrong answer: like `drop_unless`, and other readers of what goes read what lies before it."""

    def without_transposes(model):
        for first, inner, second in pairs(model):
            if not kept(model, first, inner):
                bypass(model, [first, second])
        return model

    return without_transposes


def put_identities(model):
    """Turn both nodes of a pair into Identity."""
    readers = Counter([name for node in model.graph.node for name in node.input])
    outputs = {value.name for value in model.graph.output}
    for first, relu, second in pairs(model):
        if relu.output[0] not in outputs and readers[first.output[0]] == readers[relu.output[0]] == 1:
            for node in (first, second):
                node.op_type = "Identity"
                del node.attribute[:]
    return model


def another_node(model):
    """Add a node that does nothing."""
    model.graph.node.append(helper.make_node("Identity", ["x"], ["unused"], "identity"))
    return model


# --- 05c.4 -----------------------------------------------------------------------------------------------------------


def without(flow, tensor, *, readers):
    """Return the flow without these readers of a tensor, by their position among them."""
    position, steps = -1, []
    for step in flow.steps:
        position += tensor in step.reads
        dropped = tensor in step.reads and position in readers
        steps.append(replace(step, reads=tuple(name for name in step.reads if name != tensor or not dropped)))
    return replace(flow, steps=tuple(steps))


def after(flow, tensor):
    return without(flow, tensor, readers=range(1, 99))


def same_step_only(flow, tensor):
    step = int(flow.live_bytes().argmax())
    return int(flow.live_bytes()[step] - after(flow, tensor).live_bytes()[step])


def at_the_addition(flow, tensor):
    last = max(i for i, step in enumerate(flow.steps) if tensor in step.reads)
    return int(flow.largest_live_set - flow.live_bytes()[last])


def first_readers_dropped(flow, tensor):
    return flow.largest_live_set - without(flow, tensor, readers=[0]).largest_live_set


def drops_the_last_reader(flow, tensor):
    count = sum(tensor in step.reads for step in flow.steps)
    return flow.largest_live_set - without(flow, tensor, readers=[count - 1] if count > 1 else []).largest_live_set


def of_the_first_block(flow, tensor):
    """Look at the steps up to the tensor's last reader only."""
    last = max(i for i, step in enumerate(flow.steps) if tensor in step.reads)
    return int(flow.live_bytes()[: last + 1].max() - after(flow, tensor).live_bytes()[: last + 1].max())


WRONG_ANSWERS = {
    "05c.1": [
        (with_formats(lambda tensor, i: None), "still takes the image in NCHW"),
        (with_formats(lambda tensor, i: mask("LINEAR")), "still takes the image in NCHW"),
        (with_formats(lambda tensor, i: mask("HWC") if i == 0 else None), "stop at the first input"),
    ],
    "05c.2": [
        (names_all, "runs in the kernel of its convolution"),
        (lambda model, report: {}, "You find nothing"),
        (ignores_outputs, "Who else wants the tensor"),
        (alone_in_its_kernel, "kernels of a single node"),
        (looks_at_the_graph, "judge by the ONNX graph"),
        (only_the_first, "stop at the first"),
        (goes_by_names, "names of nodes"),
    ],
    "05c.3": [
        (lambda model: model, "the pair is still there"),
        (another_node, "the pair is still there"),
        (drop_first_of_each, "One of the two is gone"),
        (drop_without_connecting, "isn't a valid model"),
        (drop_all, "doesn't undo the first"),
        (drop_inverse_and_rename, "Then both have to stay"),
        (drop_inverse, "yours has another layout"),
        (drop_unless(is_output), "the operator between the two writes. Then both"),
        (connecting_others(is_output), "the operator between the two writes. It gets"),
        (
            drop_unless(lambda model, first, inner: is_output(model, inner) or read_twice(model, inner)),
            "the first of the two writes. Then both",
        ),
        (
            connecting_others(lambda model, first, inner: is_output(model, inner) or read_twice(model, inner)),
            "the first of the two writes. It gets",
        ),
        (
            drop_unless(
                lambda model, *nodes: is_output(model, *nodes) or any(read_twice(model, node) for node in nodes),
                ("Relu", "Softmax"),
            ),
            "Which axis a Softmax normalizes",
        ),
        (drop_one_pair, "another is still there"),
    ],
    "05c.4": [
        (lambda flow, tensor: flow.sizes[tensor], "the size of the tensor"),
        (
            lambda flow, tensor: flow.largest_live_set - without(flow, tensor, readers=range(99)).largest_live_set,
            "You drop all readers",
        ),
        (drops_the_last_reader, "You drop the last reader only"),
        (lambda flow, tensor: after(flow, tensor).largest_live_set, "holds afterwards"),
        (lambda flow, tensor: flow.largest_live_set, "holds before"),
        (same_step_only, "the size of the tensor"),
        (at_the_addition, "at the step of the addition"),
        (first_readers_dropped, "another reader than the last"),
        (lambda flow, tensor: flow.sum_of_tensors - after(flow, tensor).sum_of_tensors, "depend on lifetimes"),
        (of_the_first_block, "The second block has"),
    ],
}

RIGHT_ANSWERS = {
    "05c.1": [with_formats(lambda tensor, i: mask("HWC") if len(tensor.shape) == 4 else None)],
}

# What a check says of itself, or a library of an answer; for "05c.1", HWC8 takes no FP32.
UNNAMED = [
    ("05c.1", with_formats(lambda tensor, i: mask("HWC8")), "Your function raised BuildError"),
    ("05c.1", lambda *given: with_formats(lambda *_: None)(*given).report, "BuildReport instead of what engine.build"),
    ("05c.3", lambda model: model.SerializeToString(), "returned bytes instead of an onnx.ModelProto"),
    ("05c.3", put_identities, "Something stands in the pair's place"),
]
