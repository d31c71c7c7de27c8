"""Export of a trained generator: ONNX file and SavedModel."""

from musical_tf.command_line import end_on_interrupt

end_on_interrupt()
