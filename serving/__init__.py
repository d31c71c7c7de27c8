"""Running exported models: ONNX Runtime, numpy and Pillow, and nothing else of this project."""

from musical_tf.command_line import end_on_interrupt

end_on_interrupt()
