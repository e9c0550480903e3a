"""ONNX Runtime, and onnxruntime-genai on top of it."""
