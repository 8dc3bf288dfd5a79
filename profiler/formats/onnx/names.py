"""Names for the layers of an optimised ONNX graph: the module paths of the exported network, as far as the file still has them."""

from __future__ import annotations

import re
from collections.abc import Container

from onnx import NodeProto

from profiler.formats.onnx.tensors import Tensors, used_by

# the prefixes of a weight into which onnxruntime folded a batch normalisation, a factor or a conversion to float32
_FOLDED = re.compile(r"^(?:Conv(?:Bn|Mul)Fusion_W_|MatMulBnFusion_GemmB_|InsertedPrecisionFreeCast_)+")
# the suffixes that onnxruntime adds to a name that is taken, and its quantiser to a quantised weight
_ADDED = re.compile(r"(?:_token_\d+|_quantized|_DequantizeLinear_Output)+$")
# modules that are a single node; other modules may be several nodes with the same path
_PRODUCT = re.compile("Conv|Gemm|MatMul")
_FUSED_GEMM = re.compile(r"^fused |/MatMulAddFusion$")


def name_of(node: NodeProto, tensors: Tensors) -> str:
    """The name of a node's layer.

    It comes from the weight (features.0.0.weight), the scope of the node (/features/features.0/Conv), the node or its first output,
    in this order.
    """
    weights = [name for name in used_by(node) if name in tensors.constants]
    for name in weights:
        plain = _ADDED.sub("", _FOLDED.sub("", name))
        if plain.endswith(".weight"):
            return plain.removesuffix(".weight")
    for name in weights:
        plain = _ADDED.sub("", name)
        # a matrix that the exporter transposed has lost its name, but its bias has not; a folded bias belonged to a normalisation
        if plain.endswith(".bias") and "Fusion_" not in plain:
            return plain.removesuffix(".bias")
    own = _FUSED_GEMM.sub("", node.name)
    if weights and own.count("/") > 1 and own.startswith("/") and _PRODUCT.search(node.op_type):
        return _module_path(own)
    return own or next(name for name in node.output if name)


def unique(name: str, taken: Container[str]) -> str:
    """The name itself or, if it is taken, the name with the first free number."""
    candidate = name
    number = 2
    while candidate in taken:
        candidate = f"{name}_{number}"
        number += 1
    return candidate


def _module_path(scope: str) -> str:
    """The module path of a scope: /features/features.0/conv/Conv becomes features.0.conv.

    TorchScript repeats the name of a Sequential in the names of its children.
    """
    path = ""
    last = ""
    for part in scope.strip("/").split("/")[:-1]:
        path = path.removesuffix(last) + part if last and part.startswith(f"{last}.") else f"{path}.{part}".lstrip(".")
        last = part
    return path
