"""Export to ONNX, and the check of the exported file."""
