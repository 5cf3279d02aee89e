"""A checkpoint, and every way to open one: folders, single files, the hub; LoRAs, embeddings, another VAE."""
