"""Check that no file has changed since a dataset was packed."""

from pathlib import Path

from tqdm import tqdm

from mythos.data.manifest import TOKENIZER_FILE, read_manifest
from mythos.data.shards import files_of, wrong_size
from mythos.files import sha256 as file_sha256


def verify(directory: Path) -> list[str]:
    """Read every file and return one sentence for each that does not match the manifest.

    Raises:
        ConfigError: the manifest cannot be read.
    """
    manifest = read_manifest(directory)
    problems = []
    tokenizer_path = directory / TOKENIZER_FILE
    if not tokenizer_path.is_file() or file_sha256(tokenizer_path) != manifest.tokenizer_sha256:
        problems.append(
            f"{tokenizer_path} is not the tokenizer that packed {directory}; restore it, "
            f"or pack again with mythos-data pack --overwrite --to {directory}."
        )
    files = [item for split in manifest.splits for item in files_of(directory, manifest, split)]
    for path, num_bytes, sha256 in tqdm(files, desc="verifying", unit="file", disable=None):
        if problem := wrong_size(path, num_bytes):
            problems.append(problem)
        elif (actual := file_sha256(path)) != sha256:
            problems.append(
                f"{path} changed after it was packed (SHA-256 {actual[:12]}, the manifest states {sha256[:12]});"
                f" pack again with mythos-data pack --overwrite --to {directory}."
            )
    return problems
