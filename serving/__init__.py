"""Running exported models: ONNX Runtime, numpy and Pillow, and nothing else of this project."""
