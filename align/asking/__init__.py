"""Questions for a task of one's own: drawn by a model from examples, and kept where their answers hold."""
