"""Uses an export with stock `sentence-transformers`."""

from __future__ import annotations

import json
import sys

from sentence_transformers import SentenceTransformer


def main(folder: str) -> None:
    """Prints the result as JSON."""
    asked = json.load(sys.stdin)
    model = SentenceTransformer(folder, device="cpu")
    vectors = model.encode(asked["sentences"], batch_size=8, show_progress_bar=False)
    print(json.dumps({"vectors": vectors.tolist(), "length": model.max_seq_length}))


if __name__ == "__main__":
    main(sys.argv[1])
