"""Export of a trained generator: ONNX file and SavedModel."""
