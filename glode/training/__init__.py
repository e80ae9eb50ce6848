"""What the Trainer is made of: arguments, losses, callbacks, checkpoints, the report of pseudo labels."""
