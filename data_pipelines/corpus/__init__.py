"""Read, clean, deduplicate and decontaminate text from several sources."""
