"""The stream: a store's images as LitData chunks, for data that lie in a bucket. `docs/streaming.md` describes it."""
