"""Training: from labels and features to a model version that may become champion."""
