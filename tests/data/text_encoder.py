"""A small text encoder: tokens and their mask in, one vector a text and scores for each token out.

Layers of self-attention and dense layers, as sentence encoders have them, with made-up weights. The
mask keeps padding out of attention and out of the mean, so that padded texts get the answers that
they get alone. Used by make_models.py, in a size for tests and in one for load tests.
"""

import re

import numpy as np

# What keeps a masked token out of attention: its exponential is 0 beside any real one.
MASKED = -1e9
EPSILON = 1e-5


def weights_of(seed, words, places, width, hidden, layers, scores):
    """All weights by name. Whole numbers times a power of two: the same on every machine."""
    rng = np.random.default_rng(seed)

    def array(rows, columns):
        scale = 2.0 ** -np.round(np.log2(8 * np.sqrt(rows)))
        return rng.integers(-16, 17, (rows, columns)).astype(np.float32) * np.float32(scale)

    weights = {
        "words": rng.integers(-64, 65, (words, width)).astype(np.float32) / 64,
        "places": rng.integers(-16, 17, (places, width)).astype(np.float32) / 64,
    }
    for layer in range(layers):
        for name in ("query", "key", "value", "mixed"):
            weights[f"{name}{layer}"] = array(width, width)
        weights[f"up{layer}"] = array(width, hidden)
        weights[f"down{layer}"] = array(hidden, width)
        for name, size in (("up_bias", hidden), ("down_bias", width)):
            weights[f"{name}{layer}"] = rng.integers(-8, 9, size).astype(np.float32) / 64
        for name in ("before", "between"):
            weights[f"{name}_scale{layer}"] = np.ones(width, np.float32)
            weights[f"{name}_shift{layer}"] = rng.integers(-8, 9, width).astype(np.float32) / 64
    weights["scores"] = array(width, scores)
    return weights


def layer_text(layer, heads, last):
    """Lines of one layer, from x{layer} to x{layer + 1} or to `last`."""
    lines = [
        f"n = LayerNormalization<axis = -1, epsilon = {EPSILON}>"
        f"(x{layer}, before_scale{layer}, before_shift{layer})"
    ]
    for part, order in (("query", "0, 2, 1, 3"), ("key", "0, 2, 3, 1"), ("value", "0, 2, 1, 3")):
        lines += [
            f"flat_{part} = MatMul(n, {part}{layer})",
            f"cut_{part} = Reshape(flat_{part}, by_head)",
            f"head_{part} = Transpose<perm = [{order}]>(cut_{part})",
        ]
    lines += [
        "likeness = MatMul(head_query, head_key)",
        "scaled = Mul(likeness, head_scale)",
        "masked = Add(scaled, penalty)",
        "share = Softmax<axis = -1>(masked)",
        "seen = MatMul(share, head_value)",
        "turned = Transpose<perm = [0, 2, 1, 3]>(seen)",
        "whole = Reshape(turned, by_token)",
        f"told = MatMul(whole, mixed{layer})",
        f"middle = Add(x{layer}, told)",
        f"m = LayerNormalization<axis = -1, epsilon = {EPSILON}>"
        f"(middle, between_scale{layer}, between_shift{layer})",
        f"raised = MatMul(m, up{layer})",
        f"biased = Add(raised, up_bias{layer})",
        "kept = Relu(biased)",
        f"lowered = MatMul(kept, down{layer})",
        f"settled = Add(lowered, down_bias{layer})",
        f"{last} = Add(middle, settled)",
    ]
    # Names live in one graph: each layer has its own.
    own = "|".join(line.split(" = ")[0] for line in lines[:-1])
    return [re.sub(rf"\b({own})\b", rf"\g<1>_{layer}", line) for line in lines]


def text_encoder(seed, words, places, width, heads, hidden, layers, scores):
    """Graph in text form and weights as (name, array) pairs.

    `words` is the size of the vocabulary, `places` the longest text, `hidden` the width inside of
    the dense layers. Inputs `input_ids` and `attention_mask`, outputs `pooled` and `token_scores`.
    """
    weights = weights_of(seed, words, places, width, hidden, layers, scores)
    lines = [
        "tokens = Gather<axis = 0>(words, input_ids)",
        "dims = Shape(input_ids)",
        "length = Slice(dims, one, two)",
        "own_places = Slice(places, zero, length, zero)",
        f"{'x0' if layers else 'x'} = Add(tokens, own_places)",
        "real = Cast<to = 1>(attention_mask)",
        "missing = Sub(full, real)",
        "penalties = Mul(missing, never)",
        "penalty = Unsqueeze(penalties, inner)",
    ]
    for layer in range(layers):
        last = "x" if layer == layers - 1 else f"x{layer + 1}"
        lines += layer_text(layer, heads, last)
    lines += [
        "token_scores = MatMul(x, scores)",
        "flags = Unsqueeze(real, two)",
        "real_x = Mul(x, flags)",
        "sums = ReduceSum<keepdims = 0>(real_x, one)",
        "counted = ReduceSum<keepdims = 1>(real, one)",
        "counts = Max(counted, full)",
        "pooled = Div(sums, counts)",
    ]
    body = "\n".join(lines)
    each = width // heads
    constants = (
        f"float full = {{1.0}}, float never = {{{MASKED}}}, float head_scale = {{{each ** -0.5}}}, "
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[2] inner = {1, 2}, "
        f"int64[4] by_head = {{0, 0, {heads}, {each}}}, int64[3] by_token = {{0, 0, {width}}}"
    )
    graph = (
        "(int64[batch,seq] input_ids, int64[batch,seq] attention_mask)\n"
        f"=> (float[batch,{width}] pooled, float[batch,seq,{scores}] token_scores)\n"
        f"<{constants}>\n{{\n{body}\n}}"
    )
    return graph, list(weights.items())


def reference(weights, heads, ids, mask):
    """What the encoder gives, computed with numpy."""

    def normed(x, scale, shift):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(centred.var(-1, keepdims=True) + EPSILON) * scale + shift

    def by_head(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    w = {name: array.astype(np.float64) for name, array in weights.items()}
    x = w["words"][ids] + w["places"][: ids.shape[1]]
    penalty = (1 - mask)[:, None, None, :] * MASKED
    layer = 0
    while f"query{layer}" in w:
        n = normed(x, w[f"before_scale{layer}"], w[f"before_shift{layer}"])
        query, key, value = (by_head(n @ w[f"{part}{layer}"]) for part in ("query", "key", "value"))
        masked = query @ key.swapaxes(2, 3) * query.shape[-1] ** -0.5 + penalty
        share = np.exp(masked - masked.max(-1, keepdims=True))
        seen = share / share.sum(-1, keepdims=True) @ value
        x = x + seen.transpose(0, 2, 1, 3).reshape(x.shape) @ w[f"mixed{layer}"]
        m = normed(x, w[f"between_scale{layer}"], w[f"between_shift{layer}"])
        raised = np.maximum(m @ w[f"up{layer}"] + w[f"up_bias{layer}"], 0)
        x = x + raised @ w[f"down{layer}"] + w[f"down_bias{layer}"]
        layer += 1
    pooled = (x * mask[:, :, None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1)
    return pooled.astype(np.float32), (x @ w["scores"]).astype(np.float32)
