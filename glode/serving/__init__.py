"""A finished model at work: files, an endpoint, a page, ONNX."""
