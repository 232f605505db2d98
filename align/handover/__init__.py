"""What leaves the pipeline: a policy in the forms that others load, its card, and a certificate that it is the one that
was graded. torch is imported inside functions."""
