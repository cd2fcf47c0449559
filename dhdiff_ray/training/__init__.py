"""One step, the loop, the checkpoint: no Ray here."""
