# SPDX-License-Identifier: Apache-2.0
"""What to write instead of a function, method or module that has no record."""

from __future__ import annotations

from collections.abc import Mapping

_ARITHMETIC = (
    *("sub", "sub_", "rsub", "isub", "mul", "mul_", "imul", "div", "div_", "truediv", "itruediv"),
    *(
        "neg",
        "pow",
        "sqrt",
        "rsqrt",
        "square",
        "abs",
        "subtract",
        "multiply",
        "divide",
        "true_divide",
    ),
)
_REMEDIES: Mapping[str, tuple[str, ...]] = {
    "a constant belongs into a BatchNorm right behind a layer; two maps can only be added": (
        _ARITHMETIC
    ),
    "use nn.ReLU": (
        *("clamp", "clamp_", "clip", "clamp_min", "clamp_min_", "maximum", "threshold", "hardtanh"),
        *("gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "prelu", "hardswish"),
        *("hardsigmoid", "softplus", "tanh", "logsigmoid", "swish"),
    ),
    "set the padding of the layer behind it": ("pad", "zeropad2d", "constantpad2d"),
    "use nn.BatchNorm2d right behind a layer": (
        *("layernorm", "groupnorm", "instancenorm2d", "rmsnorm", "localresponsenorm"),
        *("layer_norm", "group_norm", "instance_norm", "batch_norm", "normalize"),
    ),
    "leave maps in their order: channels, rows, columns": ("permute", "transpose", "movedim"),
    "give each part a layer of its own": (
        *("chunk", "split", "getitem", "narrow", "unbind", "select", "index_select"),
    ),
    "a map cannot grow in the engine; end the network before it": (
        *("interpolate", "upsample", "convtranspose2d", "pixelshuffle", "pixel_shuffle"),
        *("upsamplingnearest2d", "upsamplingbilinear2d"),
    ),
    "use x.mean((2, 3))": ("sum",),
    "use a max pool with a window of that size, such as nn.MaxPool2d(4, 2)": (
        *("amax", "max", "adaptivemaxpool2d", "adaptive_max_pool2d", "fractionalmaxpool2d"),
        "globalmaxpool",
    ),
    "use a plain max pool, which gives no indices": ("max_pool2d_with_indices", "maxunpool2d"),
    "only products with the weights of a layer are run": (
        *("matmul", "bmm", "einsum", "mm", "multiheadattention", "scaled_dot_product_attention"),
    ),
}


def _plain(name: str) -> str:
    """Return a name as it is for LeakyReLU, leaky_relu and LeakyRelu."""
    return name.lower().replace("_", "")


_BY_NAME = {_plain(name): remedy for remedy, names in _REMEDIES.items() for name in names}
IMAGES = "to normalise images, set data.mean and data.std"


def remedy_for(name: str, *, reads_images: bool) -> str:
    """Return "; " and what to do in place of `name`, or "" where that is not known."""
    name = _plain(name)
    if reads_images and (name == "normalize" or name in map(_plain, _ARITHMETIC)):
        return f"; {IMAGES}"
    return f"; {_BY_NAME[name]}" if name in _BY_NAME else ""
