"""An evaluator of saved Core ML packages, for machines without Core ML.

It reads a package from disk (the program's protobuf and the weight file) and runs any of
its functions with state in numpy. It says what the file computes, not how fast a phone is.
"""

from onekv.runtime.mil.evaluator import Evaluator, Precision
from onekv.runtime.mil.package import Package, read_package

__all__ = ["Evaluator", "Package", "Precision", "read_package"]
