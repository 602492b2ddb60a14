"""Export of trained models as folders that ``transformers`` loads without this package."""
