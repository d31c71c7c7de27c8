"""Training and evaluation: command lines, recipes, datasets, masks and the trainer."""

from musical_tf.command_line import end_on_interrupt

end_on_interrupt()
