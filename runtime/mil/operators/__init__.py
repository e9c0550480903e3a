"""The operators that the evaluator knows, by their name in the file.

Each is a plain function of numpy arrays whose parameters have the names of the operator's
inputs in Core ML's MIL reference; floats are float32 arrays. State is the evaluator's own.
"""

from onekv.runtime.mil.operators import attention, elementwise, norms, products, shapes, weights
from onekv.runtime.mil.operators.registry import OPERATORS

__all__ = ["OPERATORS", "attention", "elementwise", "norms", "products", "shapes", "weights"]
