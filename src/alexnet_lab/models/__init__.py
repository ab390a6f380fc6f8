"""The published networks, one module each: a factory from numbers to an `nn.Module` from images to logits."""
