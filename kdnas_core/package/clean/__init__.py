"""Scripts that use an export with stock libraries; they import nothing of this project.

`server.py` starts them. Each takes the folder as its argument and reads a JSON object from stdin, with
`sentences`, `length` (the most tokens of a sentence) and `pooling`. Its last line is a JSON object with
`vectors`: one for each sentence, or its logits if the model is a classifier.
"""
