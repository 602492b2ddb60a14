"""Optimisers and learning rate schedules over named parameters; the model's class is unknown here."""
