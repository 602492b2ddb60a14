"""Configurations and rows of the loop parts, a file for each family; ``config.parts`` has the table."""
