"""Global-local denoising of soft pseudo labels (eq. 5-11). Knows no Trainer."""
