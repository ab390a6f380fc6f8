"""The stream: a store's images as LitData chunks, for training from a bucket, see `docs/streaming.md`."""
