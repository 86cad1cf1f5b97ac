"""Scripts that use an export as anybody would: each imports stock libraries and nothing of this project.

Each takes the folder as its argument and reads from stdin a JSON object with `sentences`, `length` (tokens at
which they are cut) and `pooling`. The last line that it prints is a JSON object with `vectors`: one for each
sentence, logits where the model is a classifier.
"""
