"""What the Trainer is made of: arguments, losses, callbacks, checkpoints."""
