"""Loading, chat templates, training, sampling and export of language models. torch is imported inside functions."""
