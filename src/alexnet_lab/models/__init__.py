"""The published networks, one module each: a function that returns an `nn.Module` from images to logits."""
