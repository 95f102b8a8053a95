"""An image classifier in the form of MobileNetV2: inverted residuals, depthwise convolutions.

As a graph in ONNX's text form, with made-up weights: what it costs is real, what it says is not. Norms
are folded into the convolutions, as exporters do it.

Source: Sandler and others, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
"""

import numpy as np

# Factor by which a block widens, channels that it gives, how often it comes, its first stride.
BLOCKS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
FIRST, LAST, CLASSES = 32, 1280, 1000


def channels(count, width):
    """A multiple of 8 near `count` times `width`, at most a tenth below it."""
    wanted = count * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class Graph:
    """Lines of the graph and its weights, as they come."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.lines, self.weights = [], []

    def array(self, *shape):
        name = f"w{len(self.weights)}"
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        self.weights.append((name, (self.rng.standard_normal(shape) * spread).astype(np.float32)))
        return name

    def line(self, operator, *inputs):
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {operator}({', '.join(inputs)})")
        return name

    def convolve(self, value, taken, given, size=1, stride=1, depthwise=False, bounded=True):
        groups, pad = (taken if depthwise else 1), size // 2
        operator = (
            f"Conv<kernel_shape = [{size}, {size}], strides = [{stride}, {stride}], "
            f"pads = [{pad}, {pad}, {pad}, {pad}], group = {groups}>"
        )
        weights = self.array(given, taken // groups, size, size)
        value = self.line(operator, value, weights, self.array(given))
        return self.line("Clip", value, "zero", "six") if bounded else value

    def block(self, value, taken, given, factor, stride):
        inner, before = taken * factor, value
        if factor > 1:
            value = self.convolve(value, taken, inner)
        value = self.convolve(value, inner, inner, size=3, stride=stride, depthwise=True)
        value = self.convolve(value, inner, given, bounded=False)
        return self.line("Add", before, value) if stride == 1 and taken == given else value


def image_classifier(seed, width):
    """Graph in text form and weights as (name, array) pairs. `width` scales all channels but the
    last ones. Input `image`, output `scores`."""
    graph = Graph(seed)
    taken = channels(FIRST, width)
    value = graph.convolve("image", 3, taken, size=3, stride=2)
    for factor, count, times, stride in BLOCKS:
        given = channels(count, width)
        for turn in range(times):
            value = graph.block(value, taken, given, factor, stride if turn == 0 else 1)
            taken = given
    last = channels(LAST, max(width, 1.0))
    value = graph.convolve(value, taken, last)
    value = graph.line("GlobalAveragePool", value)
    value = graph.line("Flatten", value)
    dense = [graph.array(last, CLASSES), graph.array(CLASSES)]
    graph.lines.append(f"scores = Gemm({value}, {', '.join(dense)})")
    weights = [("zero", np.float32(0)), ("six", np.float32(6)), *graph.weights]
    body = "\n".join(graph.lines)
    text = (
        f"(float[batch,3,224,224] image) => (float[batch,{CLASSES}] scores) {{\n{body}\n}}"
    )
    return text, weights
