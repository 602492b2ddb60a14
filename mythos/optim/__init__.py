"""Optimisers and learning rate schedules over named parameters; independent of the model's class."""
