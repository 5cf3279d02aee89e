"""CLIP token ids, exactly those of transformers."""
